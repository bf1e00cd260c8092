// cli/bench/bench_stats.h: the metrics of a measured load, by the usual definitions. Pure.
//   TTFT  first token received - request sent (client's clock, queueing included)
//   TPOT  (last token - first token) / (tokens - 1), for each request
//   ITL   time between two tokens, over all requests; a frame of k tokens counts as k gaps of one
//         k-th of its time each
//   E2E   end of the stream - request sent
//   step  (wall(long) - wall(short)) / (long - short), where wall(n) is the time from sending the
//         first request to the end of the last one, with n tokens each, all at once; the least of
//         several repeats
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/types.h"

namespace fathom::client {

struct FrameTime {
  TimeUs at_us = 0;
  int32_t tokens = 0;  // > 0: frames without tokens are not timed.
};

struct RequestTrace {
  TimeUs sent_us = 0;
  TimeUs end_us = 0;
  std::vector<FrameTime> frames;
  int32_t prompt_tokens = 0;
};

struct Distribution {
  double min = 0, mean = 0, median = 0, p90 = 0, p99 = 0, max = 0;
};

// Percentiles by nearest rank; all 0 if there are no values.
Distribution Distribute(std::vector<double> values);

struct BenchSummary {
  int64_t requests = 0;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  double wall_s = 0;
  double requests_per_s = 0;
  double output_tokens_per_s = 0;
  double total_tokens_per_s = 0;  // Includes prompt tokens.
  Distribution ttft_ms, tpot_ms, itl_ms, e2e_ms;
};

BenchSummary Summarize(const std::vector<RequestTrace>& traces, int64_t wall_us);

std::string SummaryText(const BenchSummary& summary);

// One metric of a run, with the noise of its repeats.
struct Metric {
  std::string name;
  double value = 0;
  std::string unit;
  bool higher_is_better = false;
  double noise = 0;      // (largest - least) / value of the repeats; 0 for one repeat.
  double floor = 0;      // The best value that the card allows (cli/plan/roofline.h); 0: unknown.
  double share() const;  // The share of the floor that was reached, 0 to 1; 0: unknown.
};

// The median of the repeats. REQUIRES: at least one.
Metric MedianMetric(std::string name, std::string unit, bool higher_is_better,
                    const std::vector<double>& repeats);

// Milliseconds per step, from walls in seconds. REQUIRES: at least one wall of each; long > short.
Metric StepMetric(const std::vector<double>& short_walls_s, int32_t short_tokens,
                  const std::vector<double>& long_walls_s, int32_t long_tokens);

// One line for each metric.
std::string MetricsText(const std::vector<Metric>& metrics);

// A metric of two runs. `worse` and `allowed` are shares of the value before: a metric has lost if
// it is worse by more than the noise, which is 2 %, or one and a half times the spread of both
// runs' repeats if that is more.
struct MetricChange {
  std::string name;
  std::string unit;
  double before = 0, now = 0;
  double worse = 0;  // Negative: better.
  double allowed = 0;
  bool lost() const { return worse > allowed; }
};
// The metrics that both runs have.
std::vector<MetricChange> Compare(const std::vector<Metric>& metrics,
                                  const std::vector<Metric>& baseline);
// One line for each metric.
std::string ChangesText(const std::vector<MetricChange>& changes);
// One sentence for each metric that has lost.
std::vector<std::string> Losses(const std::vector<MetricChange>& changes);

}  // namespace fathom::client
