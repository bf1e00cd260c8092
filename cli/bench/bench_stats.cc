#include "cli/bench/bench_stats.h"

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
  return {.min = values.front(),
          .mean = sum / static_cast<double>(values.size()),
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

double Metric::share() const {
  if (floor <= 0 || value <= 0) return 0;
  return higher_is_better ? value / floor : floor / value;
}

Metric MedianMetric(std::string name, std::string unit, bool higher_is_better,
                    const std::vector<double>& repeats) {
  const Distribution all = Distribute(repeats);
  return {.name = std::move(name),
          .value = all.median,
          .unit = std::move(unit),
          .higher_is_better = higher_is_better,
          .noise = all.median > 0 ? (all.max - all.min) / all.median : 0};
}

Metric StepMetric(const std::vector<double>& short_walls_s, int32_t short_tokens,
                  const std::vector<double>& long_walls_s, int32_t long_tokens) {
  const Distribution less = Distribute(short_walls_s);
  const Distribution more = Distribute(long_walls_s);
  const double s = more.min - less.min;
  return {.name = "step_ms",
          .value = s * 1e3 / (long_tokens - short_tokens),
          .unit = "ms",
          .noise = s > 0 ? (more.max - more.min + less.max - less.min) / s : 0};
}

std::string MetricsText(const std::vector<Metric>& metrics) {
  std::string text;
  for (const Metric& m : metrics) {
    text += fmt::format("{:<20} {:>12.3f} {:<9}", m.name, m.value, m.unit);
    if (m.noise > 0) text += fmt::format(" spread {:.1f} %", m.noise * 100);
    if (m.floor > 0) {
      text += fmt::format("   {:.0f} % of the card's {:.3f}", m.share() * 100, m.floor);
    }
    text += '\n';
  }
  return text;
}

std::vector<MetricChange> Compare(const std::vector<Metric>& metrics,
                                  const std::vector<Metric>& baseline) {
  constexpr double kNoiseMin = 0.02;
  constexpr double kNoiseFactor = 1.5;
  std::vector<MetricChange> changes;
  for (const Metric& now : metrics) {
    const auto before = std::find_if(baseline.begin(), baseline.end(),
                                     [&](const Metric& m) { return m.name == now.name; });
    if (before == baseline.end() || before->value <= 0) continue;
    const double change = (now.value - before->value) / before->value;
    changes.push_back(
        {.name = now.name,
         .unit = now.unit,
         .before = before->value,
         .now = now.value,
         .worse = now.higher_is_better ? -change : change,
         .allowed = std::max(kNoiseMin, kNoiseFactor * std::max(now.noise, before->noise))});
  }
  return changes;
}

std::string ChangesText(const std::vector<MetricChange>& changes) {
  std::string text;
  for (const MetricChange& c : changes) {
    text +=
        fmt::format("{:<24} {:>12.3f} {:<9} before {:>12.3f}  {:>5.1f} % {}; noise {:.1f} %{}\n",
                    c.name, c.now, c.unit, c.before, std::abs(c.worse) * 100,
                    c.worse > 0 ? "worse" : "better", c.allowed * 100, c.lost() ? "  LOST" : "");
  }
  return text;
}

std::vector<std::string> Losses(const std::vector<MetricChange>& changes) {
  std::vector<std::string> losses;
  for (const MetricChange& c : changes) {
    if (!c.lost()) continue;
    losses.push_back(
        fmt::format("{}: {:.3f} {} against {:.3f} before, {:.1f} % worse; noise is {:.1f} %",
                    c.name, c.now, c.unit, c.before, c.worse * 100, c.allowed * 100));
  }
  return losses;
}

}  // namespace fathom::client
