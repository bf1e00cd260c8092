// cli/bench/bench_startup.h: starts `fathom serve` a few times and hears how long it took until
// ready. Thread: the calling one, which must be the program's first. REQUIRES: stop signals are
// blocked.
#pragma once

#include <string>
#include <vector>

#include "cli/bench/bench_json.h"

namespace fathom::client {

// Each start is stopped before the next one. `serve_args`: after `fathom serve`, without ports.
// UNAVAILABLE: it did not become ready within timeout_s, CANCELLED: a stop signal came,
// FAILED_PRECONDITION: it ended; the message has its last line.
absl::StatusOr<std::vector<StartReport>> MeasureStarts(const std::vector<std::string>& serve_args,
                                                       int32_t repeats, int32_t timeout_s);

}  // namespace fathom::client
