// cli/bench/bench_json.h: writes a run of `fathom bench` as one JSON object, and reads the metrics
// of such an object as the baseline of a later run. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/bench/bench_stats.h"
#include "cli/serve/timeline.h"
#include "common/status.h"

namespace fathom::client {

nlohmann::ordered_json MetricsJson(const std::vector<Metric>& metrics);
nlohmann::ordered_json DistributionJson(const Distribution& d);

// What two runs must have in common to be compared, in this order, e.g. {"bench", "latency"},
// {"model", "fathom-tiny"}, {"input_len", "128"}.
using RunKey = std::vector<std::pair<std::string, std::string>>;

// Reads the metrics from the output of --json (the last line that is a JSON object).
// INVALID_ARGUMENT: the text is no such output, or the run had another key; the message names the
// key.
absl::StatusOr<std::vector<Metric>> ParseBaseline(const std::string& text, const RunKey& run);

// The times of a start of `fathom serve`, from its ready line.
struct StartReport {
  int64_t start_us = 0;
  std::vector<Part> parts;
};
// INVALID_ARGUMENT: the line is not a ready line.
absl::StatusOr<StartReport> ParseReady(const std::string& line);

// Medians over several starts: the whole ("start_ms"), the time of worker 0 ("worker_ms": from its
// process' start until its last part ended), then each part. REQUIRES: at least one start.
std::vector<Metric> StartMetrics(const std::vector<StartReport>& starts);

}  // namespace fathom::client
