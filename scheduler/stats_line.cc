#include "scheduler/stats_line.h"

#include <fmt/format.h>

namespace fathom::scheduler {
namespace {

// ", 3 preemptions"; empty if there were none.
std::string Some(uint64_t count, const char* what) {
  return count == 0 ? "" : fmt::format(", {} {}", count, what);
}

// " (slots 2, blocks 1)"; empty if nothing waits.
std::string Reasons(const CoreStats& stats) {
  std::string text;
  for (size_t i = 0; i < kWaitLimits; ++i) {
    if (stats.waiting_by_limit[i] == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? " (" : ", ",
                        WaitLimitName(static_cast<WaitLimit>(i)), stats.waiting_by_limit[i]);
  }
  return text.empty() ? text : text + ")";
}

}  // namespace

std::optional<std::string> StatsLine::Take(const CoreStats& stats, TimeUs now) {
  if (now < next_us()) return std::nullopt;
  const double seconds = static_cast<double>(now - since_us_) * 1e-6;
  const auto rate = [&](uint64_t total, uint64_t before) {
    return static_cast<double>(total - before) / seconds;
  };
  const bool idle = stats.steps_total == last_.steps_total && stats.requests_running == 0 &&
                    stats.requests_waiting == 0;
  std::optional<std::string> line;
  if (!idle) {
    const double usage =
        stats.blocks_total == 0 ? 0 : 100.0 * stats.blocks_used / stats.blocks_total;
    line = fmt::format(
        "{:.1f} prompt tokens/s, {:.1f} generated tokens/s, {:.1f} steps/s; running {}, waiting "
        "{}{}; KV cache {:.1f} %{}{}{}",
        rate(stats.prompt_tokens_total, last_.prompt_tokens_total),
        rate(stats.generation_tokens_total, last_.generation_tokens_total),
        rate(stats.steps_total, last_.steps_total), stats.requests_running, stats.requests_waiting,
        Reasons(stats), usage,
        Some(stats.preemptions_total - last_.preemptions_total, "preemptions"),
        Some(stats.failovers_total - last_.failovers_total, "failovers"),
        Some(stats.refused_total - last_.refused_total, "refused"));
  }
  last_ = stats;
  since_us_ = now;
  return line;
}

}  // namespace fathom::scheduler
