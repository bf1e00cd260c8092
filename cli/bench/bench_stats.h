// cli/bench/bench_stats.h: what a measured load says, by the usual definitions. Pure.
//   TTFT  first token received - request sent (client's clock, queueing included)
//   TPOT  (last token - first token) / (tokens - 1), per request
//   ITL   gap between two tokens, all requests' together; a frame of k tokens counts as k gaps of a
//         k-th each
//   E2E   end of the stream - request sent
//   step  (wall(long) - wall(short)) / (long - short), where wall(n) is from the first request sent
//         to the last one's end, n tokens each, all at once; the least of some repeats each
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

// By nearest rank; all 0 for no values.
Distribution Distribute(std::vector<double> values);

struct BenchSummary {
  int64_t requests = 0;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  double wall_s = 0;
  double requests_per_s = 0;
  double output_tokens_per_s = 0;
  double total_tokens_per_s = 0;  // Prompts too.
  Distribution ttft_ms, tpot_ms, itl_ms, e2e_ms;
};

BenchSummary Summarize(const std::vector<RequestTrace>& traces, int64_t wall_us);

std::string SummaryText(const BenchSummary& summary);

// One figure of a run, with what its repeats tell of its noise.
struct Metric {
  std::string name;
  double value = 0;
  std::string unit;
  bool higher_is_better = false;
  double noise = 0;      // (largest - least) / value of the repeats; 0 for one repeat.
  double floor = 0;      // What the card allows at best (cli/plan/roofline.h); 0: not known.
  double share() const;  // Of the floor that was reached, 0 to 1; 0: not known.
};

// The median of the repeats. REQUIRES: at least one.
Metric MedianMetric(std::string name, std::string unit, bool higher_is_better,
                    const std::vector<double>& repeats);

// Milliseconds of a step, from walls in seconds. REQUIRES: at least one wall each; long > short.
Metric StepMetric(const std::vector<double>& short_walls_s, int32_t short_tokens,
                  const std::vector<double>& long_walls_s, int32_t long_tokens);

// One line a metric.
std::string MetricsText(const std::vector<Metric>& metrics);

// What got worse than in `baseline` by more than noise: 2 %, or one and a half times what the
// repeats of both runs spread if that is more. One sentence a metric; metrics that only one of the
// two has are no loss.
std::vector<std::string> Losses(const std::vector<Metric>& metrics,
                                const std::vector<Metric>& baseline);

}  // namespace fathom::client
