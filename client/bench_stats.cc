#include "client/bench_stats.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fathom::client {

Distribution Distribute(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto rank = [&](double p) {
    const auto at = static_cast<size_t>(std::ceil(p * static_cast<double>(values.size())));
    return values[std::max<size_t>(at, 1) - 1];
  };
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return {.mean = sum / static_cast<double>(values.size()),
          .median = rank(0.5),
          .p90 = rank(0.9),
          .p99 = rank(0.99),
          .max = values.back()};
}

BenchSummary Summarize(const std::vector<RequestTrace>& traces, int64_t wall_us) {
  BenchSummary all;
  std::vector<double> ttft, tpot, itl, e2e;
  for (const RequestTrace& trace : traces) {
    all.requests += 1;
    all.prompt_tokens += trace.prompt_tokens;
    e2e.push_back(static_cast<double>(trace.end_us - trace.sent_us) / 1e3);
    if (trace.frames.empty()) continue;
    const TimeUs first_us = trace.frames.front().at_us;
    ttft.push_back(static_cast<double>(first_us - trace.sent_us) / 1e3);
    int64_t tokens = trace.frames.front().tokens;
    for (size_t i = 1; i < trace.frames.size(); ++i) {
      const FrameTime& frame = trace.frames[i];
      const auto gap_ms = static_cast<double>(frame.at_us - trace.frames[i - 1].at_us) / 1e3;
      itl.insert(itl.end(), static_cast<size_t>(frame.tokens), gap_ms / frame.tokens);
      tokens += frame.tokens;
    }
    all.output_tokens += tokens;
    if (tokens > 1) {
      const auto rest_ms = static_cast<double>(trace.frames.back().at_us - first_us) / 1e3;
      tpot.push_back(rest_ms / static_cast<double>(tokens - 1));
    }
  }
  all.wall_s = static_cast<double>(wall_us) / 1e6;
  if (wall_us > 0) {
    all.requests_per_s = static_cast<double>(all.requests) / all.wall_s;
    all.output_tokens_per_s = static_cast<double>(all.output_tokens) / all.wall_s;
    all.total_tokens_per_s =
        static_cast<double>(all.output_tokens + all.prompt_tokens) / all.wall_s;
  }
  all.ttft_ms = Distribute(std::move(ttft));
  all.tpot_ms = Distribute(std::move(tpot));
  all.itl_ms = Distribute(std::move(itl));
  all.e2e_ms = Distribute(std::move(e2e));
  return all;
}

std::string SummaryText(const BenchSummary& s) {
  std::string text = fmt::format(
      "requests            {:>10}   in {:.2f} s, {:.2f} per second\n"
      "output tokens       {:>10}   {:.1f} per second ({:.1f} with prompts)\n\n"
      "ms                      mean     median        p90        p99        max\n",
      s.requests, s.wall_s, s.requests_per_s, s.output_tokens, s.output_tokens_per_s,
      s.total_tokens_per_s);
  const auto row = [&](const char* name, const Distribution& d) {
    text += fmt::format("{:<17} {:>10.3f} {:>10.3f} {:>10.3f} {:>10.3f} {:>10.3f}\n", name, d.mean,
                        d.median, d.p90, d.p99, d.max);
  };
  row("TTFT", s.ttft_ms);
  row("TPOT", s.tpot_ms);
  row("ITL", s.itl_ms);
  row("E2E", s.e2e_ms);
  return text;
}

}  // namespace fathom::client
