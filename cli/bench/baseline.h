// cli/bench/baseline.h: the end of every `fathom bench`: prints the run, and compares it with an
// earlier one. A metric has lost if it is worse by more than the noise (Losses in bench_stats.h).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/bench/bench_stats.h"

namespace fathom::client {

// Prints `text`, or `run` with its repeats and metrics as one line of JSON. `run` has the keys that
// two runs must have in common ("bench", "model", "input_len", ...). Returns 0; 1 if a metric has
// lost against the file `baseline`; 64 if that one cannot be compared. An empty name: no baseline.
int ConcludeBench(nlohmann::ordered_json run, const std::vector<Metric>& metrics, int32_t repeats,
                  const std::string& text, bool json, const std::string& baseline);

}  // namespace fathom::client
