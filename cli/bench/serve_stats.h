// cli/bench/serve_stats.h: the figures of `fathom bench serve` at each load, by the definitions of
// bench_stats.h, with one difference: latency counts from the time at which a request was due, not
// from its sending. Goodput: the requests a second that meet every given limit (SLO); a failed
// request meets none. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/bench/bench_stats.h"

namespace fathom::client {

// One pass over the workload at one load.
struct RoundResult {
  std::vector<RequestTrace> requests;  // Those that were answered; sent_us is when one was due.
  int32_t failed = 0;
  std::string first_error;
  int64_t wall_us = 0;        // From the first due time to the last end.
  int64_t late_us_max = 0;    // The longest time from due to sent.
  int64_t cached_tokens = 0;  // Prompt tokens that the cluster took from a cache.
  double client_cpus = 0;     // CPUs that this program used.
};

// 0: no limit.
struct Slo {
  double ttft_ms = 2000;
  double tpot_ms = 100;
  double e2e_ms = 0;
};
bool Meets(const RequestTrace& trace, const Slo& slo);

// All rounds at one load.
struct LoadLevel {
  double offered_per_s = 0;  // Requests.
  BenchSummary summary;      // Over all rounds; `requests` are the answered ones.
  int32_t failed = 0;
  std::string first_error;
  double goodput_per_s = 0;
  double good_share = 0;  // Of all requests, failed ones included.
  double late_ms_max = 0;
  double cached_share = 0;      // Of the prompt tokens.
  double client_cpus = 0;       // The most of any round.
  std::vector<double> ttft_ms;  // Sorted, for curves.
  std::vector<Metric> metrics;  // With the load in their name, "ttft_ms@4".
  // Requests in flight (due and not ended) in the last quarter of the time in which requests come,
  // over those in its second quarter, and the share of the requests that are in flight at its end;
  // medians of the rounds. Under a load that is too high the first is about 2.3 and does not depend
  // on the load; a round that is short against an answer looks like that too.
  double growth = 1;
  double unfinished_share = 0;
  bool saturated() const { return growth > 1.5 && unfinished_share > 0.1; }
};

// REQUIRES: at least one round.
LoadLevel Measure(double offered_per_s, const std::vector<RoundResult>& rounds, const Slo& slo);

// What was measured, for the head of the report.
struct ServeRun {
  std::string model, fingerprint, device, dtype, when;
  std::string workload, arrivals;
  int32_t requests = 0;  // Of a round.
  int32_t repeats = 1;
  double input_mean = 0, output_mean = 0;  // Planned tokens of a request.
  double scale = 1;
  int32_t shortened = 0;
  int64_t seed = 1;
  Slo slo;
  std::vector<LoadLevel> levels;  // By ascending load.
};

std::string ToText(const ServeRun& run);
nlohmann::ordered_json ToJson(const ServeRun& run);
std::string ToHtml(const ServeRun& run);

}  // namespace fathom::client
