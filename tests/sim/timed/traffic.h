// tests/sim/timed/traffic.h: who asks for what, and when: the workloads of `fathom bench serve`
// (cli/bench/workload.h) for several tenants, each with a rate of its own, and one more:
//
//   coding  an agent that edits code: a shared beginning of 2,048 tokens (instructions, tools),
//   then
//           up to 16 turns, as far as the context goes, of 1,000 to 2,000 new tokens (the output of
//           tools) / 100 to 300. A turn's prompt has all earlier prompts and answers; it is due
//           when the answer before it has come and a pause (exponential, 1 s) is over. With a
//           context of 16,384 a prompt has 9,500 tokens and an answer 200 on average, about as in
//           the published "tool and agent" trace of Mooncake (8,596 and 182: Qin et al., FAST
//           2025).
//
// Pure; everything follows from the seed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/bench/workload.h"
#include "common/types.h"

namespace fathom::sim {

// A user of a tenant. The first turn is due at `at_us`, each later one when the answer before it
// has come and its pause is over.
struct Conversation {
  TimeUs at_us = 0;
  std::string tenant;
  client::SessionPlan plan;
  int32_t number = 0;  // Its tokens follow from it and from `seed`.
  uint64_t seed = 0;
};

// Open loop: `rate` requests a second come, whatever the cluster does.
struct TenantLoad {
  std::string tenant;
  double rate = 0;
  std::string workload;  // "": that of the options.
};

inline constexpr const char* kCodingWorkload = "coding";
inline constexpr int32_t kCodingContextMin = 4352;  // For its first turn.

struct TrafficOptions {
  client::WorkloadOptions workload;
  client::Arrivals arrivals = client::Arrivals::kPoisson;
  std::vector<TenantLoad> tenants;
  double seconds = 60;
};

// Ascending by time. REQUIRES: rates and seconds > 0.
std::vector<Conversation> MakeTraffic(const TrafficOptions& options);

}  // namespace fathom::sim
