// cli/bench/workload.h: the requests of `fathom bench serve`: when they arrive, how long they are,
// and which tokens they share. Everything follows from the seed by fixed formulas, with the same
// result on every machine; no data set is needed. Pure.
//
// Workloads (input / output tokens of a request):
//   sharegpt  log-normal, medians 119 / 113, sigmas 1.2 / 1.0, from 4 to 1,024: means about
//             215 / 179, those of the ShareGPT samples that other benchmarks use
//   long      8,192 / 1,024
//   prefix    one of 4 shared prefixes of 1,024 tokens, then 64 to 192 of its own / 64 to 192
//   agent     a session of 6 turns: a shared beginning of 768 tokens, then in each turn 40 to 200
//             new tokens / 30 to 150; a turn's prompt has all earlier prompts and answers. It is
//             due when the answer before it has come and a pause (exponential, 0.5 s) is over
//   fixed     the given lengths
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/types.h"

namespace fathom::client {

enum class Arrivals { kPoisson, kBursty, kEven };

// The times in seconds, ascending, of `count` arrivals, from 0 to (count - 1) / rate. The gaps are
// exponential, gamma-distributed with shape 0.25 (clumps of requests between long pauses; its
// variance is 4 times that of Poisson), or all equal. REQUIRES: rate > 0, count
// > 0.
std::vector<double> ArrivalTimes(Arrivals arrivals, double rate, int32_t count, uint64_t seed);

struct TurnPlan {
  int32_t new_tokens = 0;  // At the end of the prompt.
  int32_t output_tokens = 0;
  double pause_s = 0;  // After the previous turn's answer.
};

// One user. Sessions with the same prefix number begin with the same tokens.
struct SessionPlan {
  int32_t prefix = 0;
  int32_t prefix_tokens = 0;
  std::vector<TurnPlan> turns;  // At least one.
};

struct WorkloadOptions {
  std::string name;                       // One of kWorkloads.
  int32_t input_len = 0, output_len = 0;  // Of "fixed".
  double scale = 1;                       // All lengths times this, at least 1 token.
  int32_t context_tokens = 0;             // Longest prompt and answer together.
  uint64_t seed = 1;
};
inline constexpr const char* kWorkloads[] = {"sharegpt", "long", "prefix", "agent", "fixed"};

struct Workload {
  std::vector<SessionPlan> sessions;
  int32_t requests = 0;   // Turns of all sessions.
  int32_t shortened = 0;  // Turns that were cut, or left out, because of the context.
};

// Sessions with together at least `requests` turns, or fewer if the context cuts turns.
Workload MakeWorkload(const WorkloadOptions& options, int32_t requests);

// The tokens of a shared prefix, and the new tokens of a turn. `round` gives other tokens with the
// same lengths, so that no cache of an earlier round has them.
std::vector<TokenId> PrefixTokens(uint64_t seed, int32_t round, int32_t prefix, int32_t count,
                                  int32_t vocab);
std::vector<TokenId> TurnTokens(uint64_t seed, int32_t round, int32_t session, int32_t turn,
                                int32_t count, int32_t vocab);

}  // namespace fathom::client
