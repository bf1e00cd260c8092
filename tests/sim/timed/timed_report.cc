#include "tests/sim/timed/timed_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace fathom::sim {
namespace {

constexpr double kParts[] = {0.50, 0.95, 0.99};

void Quantiles(std::vector<double> values, double (&out)[3]) {
  if (values.empty()) return;
  std::sort(values.begin(), values.end());
  for (size_t i = 0; i < 3; ++i) {
    const auto at = static_cast<size_t>(kParts[i] * static_cast<double>(values.size()));
    out[i] = values[std::min(at, values.size() - 1)];
  }
}

double TpotMs(const Call& call) {
  if (call.tokens < 2) return 0;
  return static_cast<double>(call.last_us - call.first_us) / (call.tokens - 1) / 1e3;
}

}  // namespace

TimedSummary Summarize(const std::vector<Call>& calls, const std::string& tenant, TimeUs begin_us,
                       TimeUs end_us, const Objective& objective) {
  TimedSummary summary{.tenant = tenant};
  std::vector<double> ttft, tpot;
  int64_t good = 0, output = 0, ended = 0, prompt = 0, cached = 0;
  for (const Call& call : calls) {
    if (!tenant.empty() && call.tenant != tenant) continue;
    if (call.answered() && call.end_us >= begin_us && call.end_us < end_us) {
      output += call.tokens;
      ++ended;
    }
    if (call.due_us < begin_us || call.due_us >= end_us) continue;
    ++summary.requests;
    summary.refused += call.refused ? 1 : 0;
    if (!call.answered()) continue;
    ++summary.answered;
    prompt += call.prompt_tokens;
    cached += call.cached_tokens;
    ttft.push_back(static_cast<double>(call.first_us - call.due_us) / 1e3);
    if (call.tokens > 1) tpot.push_back(TpotMs(call));
    good += ttft.back() <= objective.ttft_ms && TpotMs(call) <= objective.tpot_ms ? 1 : 0;
  }
  const double seconds = static_cast<double>(end_us - begin_us) / 1e6;
  const auto share = [](int64_t part, int64_t of) {
    return of == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(of);
  };
  summary.offered_per_s = static_cast<double>(summary.requests) / seconds;
  summary.goodput_per_s = static_cast<double>(good) / seconds;
  summary.good_share = share(good, summary.requests);
  summary.output_per_s = static_cast<double>(output) / seconds;
  summary.ended_per_s = static_cast<double>(ended) / seconds;
  summary.cached_share = share(cached, prompt);
  Quantiles(std::move(ttft), summary.ttft_ms);
  Quantiles(std::move(tpot), summary.tpot_ms);
  return summary;
}

nlohmann::ordered_json ToJson(const TimedSummary& s) {
  return {{"tenant", s.tenant},
          {"requests", s.requests},
          {"answered", s.answered},
          {"refused", s.refused},
          {"offered_per_s", s.offered_per_s},
          {"goodput_per_s", s.goodput_per_s},
          {"good_share", s.good_share},
          {"ended_per_s", s.ended_per_s},
          {"output_tokens_per_s", s.output_per_s},
          {"ttft_ms", {{"p50", s.ttft_ms[0]}, {"p95", s.ttft_ms[1]}, {"p99", s.ttft_ms[2]}}},
          {"tpot_ms", {{"p50", s.tpot_ms[0]}, {"p95", s.tpot_ms[1]}, {"p99", s.tpot_ms[2]}}},
          {"cached_share", s.cached_share}};
}

std::string RowHeads() {
  return fmt::format("{:<10} {:>8} {:>8} {:>6} {:>8} {:>9} {:>26} {:>20} {:>7} {:>7}", "tenant",
                     "offered/s", "good/s", "good %", "ended/s", "tokens/s", "TTFT p50/95/99 ms",
                     "TPOT p50/95/99", "refused", "cached");
}

std::string ToRow(const TimedSummary& s) {
  return fmt::format(
      "{:<10} {:>9.1f} {:>8.1f} {:>6.1f} {:>8.1f} {:>9.0f} {:>26} {:>20} {:>7} {:>6.0f}%",
      s.tenant.empty() ? "all" : s.tenant, s.offered_per_s, s.goodput_per_s, 100 * s.good_share,
      s.ended_per_s, s.output_per_s,
      fmt::format("{:.0f}/{:.0f}/{:.0f}", s.ttft_ms[0], s.ttft_ms[1], s.ttft_ms[2]),
      fmt::format("{:.1f}/{:.1f}/{:.1f}", s.tpot_ms[0], s.tpot_ms[1], s.tpot_ms[2]), s.refused,
      100 * s.cached_share);
}

}  // namespace fathom::sim
