// client/bench_stats.h: what a measured load says, by the usual definitions. Pure.
//   TTFT  first token received - request sent (client's clock, queueing included)
//   TPOT  (last token - first token) / (tokens - 1), per request
//   ITL   gap between two tokens, all requests' together; a frame of k tokens counts as k gaps of a
//   k-th each E2E   end of the stream - request sent
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
  double mean = 0, median = 0, p90 = 0, p99 = 0, max = 0;
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

}  // namespace fathom::client
