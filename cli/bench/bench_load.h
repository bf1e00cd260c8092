// cli/bench/bench_load.h: random prompts sent to a running cluster, and when their tokens came.
// Thread: the caller's, plus one for each request under way.
#pragma once

#include <cstdint>
#include <vector>

#include "cli/bench/bench_stats.h"
#include "client/client.h"
#include "common/clock.h"

namespace fathom::client {

struct Load {
  int32_t requests = 0;
  int32_t concurrency = 0;  // Closed loop: so many under way until all are done.
  int32_t input_len = 0;
  int32_t output_len = 0;
  int64_t seed = 1;
  int32_t round = 0;  // Other prompts of the same seed, so that no cache knows them.
};

// The same prompts for the same load and vocabulary. Greedy, so that the same load is the same
// work.
GenerateRequest RandomRequest(const Load& load, int32_t vocab, int32_t index);

struct LoadTrace {
  std::vector<RequestTrace> requests;
  int64_t wall_us = 0;  // First request sent to last one's end.
};

// The first error ends it. `label`: of the progress bar. REQUIRES: requests, concurrency >= 1.
absl::StatusOr<LoadTrace> RunLoad(Client& client, const Load& load, int32_t vocab,
                                  const Clock& clock, const char* label);

}  // namespace fathom::client
