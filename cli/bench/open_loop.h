// cli/bench/open_loop.h: sends a workload at the times of its plan, whether or not earlier answers
// have come. A request's latency counts from the time at which it was due, so a slow cluster cannot
// hide its queue by slowing down the sender (coordinated omission). Thread: the calling one, plus
// one for each session in flight.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/bench/serve_stats.h"
#include "cli/bench/workload.h"
#include "client/client.h"
#include "common/clock.h"

namespace fathom::client {

struct OpenLoopOptions {
  int32_t in_flight_max = 512;  // Sessions; beyond that they are sent late, and that is counted.
  uint64_t seed = 1;
  int32_t round = 0;
};

// `times` has the second of each session's first turn. A request that fails is part of the result.
// REQUIRES: as many times as sessions.
RoundResult RunOpenLoop(Client& client, const Workload& workload, const std::vector<double>& times,
                        int32_t vocab, const OpenLoopOptions& options, const Clock& clock);

}  // namespace fathom::client
