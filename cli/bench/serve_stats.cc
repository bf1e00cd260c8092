#include "cli/bench/serve_stats.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/bench/bench_json.h"

namespace fathom::client {
namespace {

double Ms(int64_t us) { return static_cast<double>(us) / 1e3; }

double FirstMs(const RequestTrace& trace) { return Ms(trace.frames.front().at_us - trace.sent_us); }

// The mean gap after the first token; 0 with one token.
double TpotMs(const RequestTrace& trace) {
  int64_t tokens = -1;
  for (const FrameTime& frame : trace.frames) tokens += frame.tokens;
  if (tokens < 1) return 0;
  return Ms(trace.frames.back().at_us - trace.frames.front().at_us) / static_cast<double>(tokens);
}

int32_t CountGood(const RoundResult& round, const Slo& slo) {
  return static_cast<int32_t>(std::ranges::count_if(
      round.requests, [&](const RequestTrace& trace) { return Meets(trace, slo); }));
}

// The mean number of requests in flight from `begin` to `end`.
double InFlight(const RoundResult& round, double begin_us, double end_us) {
  double sum_us = 0;
  for (const RequestTrace& trace : round.requests) {
    sum_us += std::max(0.0, std::min(end_us, static_cast<double>(trace.end_us)) -
                                std::max(begin_us, static_cast<double>(trace.sent_us)));
  }
  return sum_us / (end_us - begin_us);
}

struct Growth {
  double growth = 1, unfinished_share = 0;
};
Growth GrowthOf(const RoundResult& round) {
  if (round.requests.empty()) return {};
  const auto [first, last] = std::ranges::minmax(round.requests, {}, &RequestTrace::sent_us);
  const TimeUs last_due_us = last.sent_us;
  const auto begin_us = static_cast<double>(first.sent_us);
  const auto end_us = static_cast<double>(last_due_us);
  const double quarter_us = (end_us - begin_us) / 4;
  if (quarter_us <= 0) return {};
  const double before = InFlight(round, begin_us + quarter_us, begin_us + 2 * quarter_us);
  const double after = InFlight(round, end_us - quarter_us, end_us);
  const auto unfinished = std::ranges::count_if(
      round.requests, [&](const RequestTrace& t) { return t.end_us > last_due_us; });
  return {.growth = before > 0 ? after / before : 1,
          .unfinished_share =
              static_cast<double>(unfinished) / static_cast<double>(round.requests.size())};
}

double PerSecond(int32_t count, int64_t wall_us) {
  return wall_us > 0 ? count * 1e6 / static_cast<double>(wall_us) : 0;
}

std::vector<Metric> MetricsOf(double offered_per_s, const std::vector<RoundResult>& rounds,
                              const Slo& slo) {
  std::vector<double> ttft, tail, tpot, rate, good;
  for (const RoundResult& round : rounds) {
    const BenchSummary one = Summarize(round.requests, round.wall_us);
    ttft.push_back(one.ttft_ms.median);
    tail.push_back(one.ttft_ms.p99);
    tpot.push_back(one.tpot_ms.median);
    rate.push_back(one.output_tokens_per_s);
    good.push_back(PerSecond(CountGood(round, slo), round.wall_us));
  }
  const auto name = [&](const char* what) { return fmt::format("{}@{:g}", what, offered_per_s); };
  return {MedianMetric(name("output_tokens_per_s"), "tokens/s", true, rate),
          MedianMetric(name("goodput_per_s"), "req/s", true, good),
          MedianMetric(name("ttft_ms"), "ms", false, ttft),
          MedianMetric(name("ttft_p99_ms"), "ms", false, tail),
          MedianMetric(name("tpot_ms"), "ms", false, tpot)};
}

nlohmann::ordered_json LevelJson(const LoadLevel& level) {
  const BenchSummary& s = level.summary;
  return {{"offered_per_s", level.offered_per_s},
          {"requests", s.requests},
          {"failed", level.failed},
          {"first_error", level.first_error},
          {"requests_per_s", s.requests_per_s},
          {"output_tokens_per_s", s.output_tokens_per_s},
          {"total_tokens_per_s", s.total_tokens_per_s},
          {"goodput_per_s", level.goodput_per_s},
          {"good_share", level.good_share},
          {"growth", level.growth},
          {"unfinished_share", level.unfinished_share},
          {"saturated", level.saturated()},
          {"cached_share", level.cached_share},
          {"late_ms_max", level.late_ms_max},
          {"client_cpus", level.client_cpus},
          {"ttft_ms", DistributionJson(s.ttft_ms)},
          {"tpot_ms", DistributionJson(s.tpot_ms)},
          {"itl_ms", DistributionJson(s.itl_ms)},
          {"e2e_ms", DistributionJson(s.e2e_ms)}};
}

}  // namespace

bool Meets(const RequestTrace& trace, const Slo& slo) {
  if (trace.frames.empty()) return false;
  return (slo.ttft_ms <= 0 || FirstMs(trace) <= slo.ttft_ms) &&
         (slo.tpot_ms <= 0 || TpotMs(trace) <= slo.tpot_ms) &&
         (slo.e2e_ms <= 0 || Ms(trace.end_us - trace.sent_us) <= slo.e2e_ms);
}

LoadLevel Measure(double offered_per_s, const std::vector<RoundResult>& rounds, const Slo& slo) {
  LoadLevel level{.offered_per_s = offered_per_s};
  std::vector<RequestTrace> all;
  int64_t wall_us = 0, cached_tokens = 0;
  int32_t good = 0;
  std::vector<double> growths, unfinished;
  for (const RoundResult& round : rounds) {
    const Growth growth = GrowthOf(round);
    growths.push_back(growth.growth);
    unfinished.push_back(growth.unfinished_share);
    all.insert(all.end(), round.requests.begin(), round.requests.end());
    wall_us += round.wall_us;
    cached_tokens += round.cached_tokens;
    good += CountGood(round, slo);
    level.failed += round.failed;
    if (level.first_error.empty()) level.first_error = round.first_error;
    level.late_ms_max = std::max(level.late_ms_max, Ms(round.late_us_max));
    level.client_cpus = std::max(level.client_cpus, round.client_cpus);
  }
  level.growth = Distribute(growths).median;
  level.unfinished_share = Distribute(unfinished).median;
  level.summary = Summarize(all, wall_us);
  level.goodput_per_s = PerSecond(good, wall_us);
  const double asked = static_cast<double>(all.size()) + level.failed;
  level.good_share = asked > 0 ? good / asked : 0;
  const auto prompts = static_cast<double>(level.summary.prompt_tokens);
  level.cached_share = prompts > 0 ? static_cast<double>(cached_tokens) / prompts : 0;
  for (const RequestTrace& trace : all) {
    if (!trace.frames.empty()) level.ttft_ms.push_back(FirstMs(trace));
  }
  std::sort(level.ttft_ms.begin(), level.ttft_ms.end());
  level.metrics = MetricsOf(offered_per_s, rounds, slo);
  return level;
}

std::string ToText(const ServeRun& run) {
  std::string text = fmt::format(
      "serve: {}, {} arrivals, {} requests a round, {:.0f} tokens in and {:.0f} out on average, {} "
      "round{}\n\n"
      "offered req/s   req/s  tokens/s  goodput    good   TTFT p50      p99   TPOT p50      p99   "
      "ITL p99  failed\n",
      run.workload, run.arrivals, run.requests, run.input_mean, run.output_mean, run.repeats,
      run.repeats > 1 ? "s" : "");
  for (const LoadLevel& level : run.levels) {
    const BenchSummary& s = level.summary;
    text += fmt::format(
        "{:>13.2f} {:>7.2f} {:>9.1f} {:>8.2f} {:>5.0f} % {:>10.1f} {:>8.1f} {:>10.2f} {:>8.2f} "
        "{:>9.2f} {:>7}{}\n",
        level.offered_per_s, s.requests_per_s, s.output_tokens_per_s, level.goodput_per_s,
        100 * level.good_share, s.ttft_ms.median, s.ttft_ms.p99, s.tpot_ms.median, s.tpot_ms.p99,
        s.itl_ms.p99, level.failed, level.saturated() ? "  saturated" : "");
    if (level.failed > 0) text += fmt::format("{:>13} {}\n", "", level.first_error);
  }
  text += fmt::format(
      "\ngoodput: TTFT up to {:g} ms, TPOT up to {:g} ms{}; milliseconds from when a request was "
      "due\n",
      run.slo.ttft_ms, run.slo.tpot_ms,
      run.slo.e2e_ms > 0 ? fmt::format(", whole answer up to {:g} ms", run.slo.e2e_ms) : "");
  return text;
}

nlohmann::ordered_json ToJson(const ServeRun& run) {
  std::vector<double> rates;
  nlohmann::ordered_json levels = nlohmann::ordered_json::array();
  for (const LoadLevel& level : run.levels) {
    rates.push_back(level.offered_per_s);
    levels.push_back(LevelJson(level));
  }
  return {
      {"model", run.model},
      {"fingerprint", run.fingerprint},
      {"device", run.device},
      {"dtype", run.dtype},
      {"time", run.when},
      {"workload", run.workload},
      {"arrivals", run.arrivals},
      {"requests_a_round", run.requests},
      {"rates", std::move(rates)},
      {"scale", run.scale},
      {"seed", run.seed},
      {"input_mean", run.input_mean},
      {"output_mean", run.output_mean},
      {"shortened", run.shortened},
      {"slo",
       {{"ttft_ms", run.slo.ttft_ms}, {"tpot_ms", run.slo.tpot_ms}, {"e2e_ms", run.slo.e2e_ms}}},
      {"levels", std::move(levels)}};
}

}  // namespace fathom::client
