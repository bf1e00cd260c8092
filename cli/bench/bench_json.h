// cli/bench/bench_json.h: a run of `fathom bench` as one JSON object, and its metrics read back as
// the baseline of a later run. Pure.
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

// The metrics in what --json printed (the last line that is a JSON object). INVALID_ARGUMENT: it is
// no such output, or of a run of another kind; the message names the key that differs.
absl::StatusOr<std::vector<Metric>> ParseBaseline(const std::string& text, const RunKey& run);

// A start of `fathom serve` by its ready line.
struct StartReport {
  int64_t start_us = 0;
  std::vector<Part> parts;
};
// INVALID_ARGUMENT: not a ready line.
absl::StatusOr<StartReport> ParseReady(const std::string& line);

// Medians over several starts: the whole ("start_ms"), the time of its worker 0 ("worker_ms": from
// its process' start until nothing of it is left), then every part. REQUIRES: at least one.
std::vector<Metric> StartMetrics(const std::vector<StartReport>& starts);

}  // namespace fathom::client
