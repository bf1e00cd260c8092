// cli/bench/bench_startup.h: starts `fathom serve` several times and measures the time until it is
// ready. Thread: the calling one, which must be the program's first. REQUIRES: stop signals are
// blocked.
#pragma once

#include <string>
#include <vector>

#include "cli/bench/bench_json.h"

namespace fathom::client {

// Stops each start before the next one. `serve_args` are the arguments of `fathom serve`, without
// ports. UNAVAILABLE: not ready within timeout_s. CANCELLED: a stop signal came.
// FAILED_PRECONDITION: the child ended; the message has its last line.
absl::StatusOr<std::vector<StartReport>> MeasureStarts(const std::vector<std::string>& serve_args,
                                                       int32_t repeats, int32_t timeout_s);

}  // namespace fathom::client
