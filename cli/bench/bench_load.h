// cli/bench/bench_load.h: sends random prompts to a running cluster and records when their tokens
// came. Thread: the caller's, plus one for each request in flight.
#pragma once

#include <cstdint>
#include <vector>

#include "cli/bench/bench_stats.h"
#include "client/client.h"
#include "common/clock.h"

namespace fathom::client {

struct Load {
  int32_t requests = 0;
  int32_t concurrency = 0;  // Closed loop: this many requests in flight until all are done.
  int32_t input_len = 0;
  int32_t output_len = 0;
  int64_t seed = 1;
  int32_t round = 0;  // A round has other prompts of the same seed, so that no cache has them.
};

// Equal loads and vocabularies give equal prompts. Sampling is greedy, so equal loads are equal
// work.
GenerateRequest RandomRequest(const Load& load, int32_t vocab, int32_t index);

struct LoadTrace {
  std::vector<RequestTrace> requests;
  int64_t wall_us = 0;  // From sending the first request to the end of the last.
};

// The first error ends the load. `label` names the progress bar. REQUIRES: requests, concurrency >=
// 1.
absl::StatusOr<LoadTrace> RunLoad(Client& client, const Load& load, int32_t vocab,
                                  const Clock& clock, const char* label);

}  // namespace fathom::client
