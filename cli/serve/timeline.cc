#include "cli/serve/timeline.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/check.h"

namespace fathom::client {

std::vector<Interval> ProcessIntervals(const std::string& process, TimeUs started_at_us,
                                       const std::vector<PhaseMark>& phases) {
  std::vector<Interval> intervals;
  TimeUs cursor_us = started_at_us;
  for (const PhaseMark& phase : phases) {
    if (intervals.empty()) {
      cursor_us = std::max(started_at_us, phase.at_us - phase.us);
      intervals.push_back({process + ": process", started_at_us, cursor_us});
    }
    intervals.push_back({process + ": " + phase.name, cursor_us, phase.at_us});
    cursor_us = phase.at_us;
  }
  return intervals;
}

std::vector<Part> CutTimeline(TimeUs begin_us, TimeUs end_us,
                              const std::vector<Interval>& intervals) {
  FATHOM_CHECK(begin_us <= end_us);
  std::vector<Part> parts;
  TimeUs cursor_us = begin_us;
  int64_t other_us = 0;
  for (const Interval& interval : intervals) {
    const TimeUs from_us = std::clamp(interval.from_us, cursor_us, end_us);
    const TimeUs to_us = std::clamp(interval.to_us, from_us, end_us);
    other_us += from_us - cursor_us;
    cursor_us = to_us;
    if (!parts.empty() && parts.back().name == interval.name) {
      parts.back().us += to_us - from_us;
    } else {
      parts.push_back({interval.name, to_us - from_us});
    }
  }
  parts.push_back({"other", other_us + end_us - cursor_us});
  return parts;
}

std::string SlowText(const std::string& process, TimeUs started_at_us,
                     const std::vector<PhaseMark>& phases, TimeUs now_us) {
  std::string text = fmt::format("{} for {:.1f} s", process, (now_us - started_at_us) / 1e6);
  if (phases.empty()) return text + ", before its first part";
  return text + fmt::format(", {:.1f} s since {}", (now_us - phases.back().at_us) / 1e6,
                            phases.back().name);
}

std::string TimelineText(const std::vector<Part>& parts) {
  int64_t total_us = 0;
  size_t width = 5;
  for (const Part& part : parts) {
    total_us += part.us;
    width = std::max(width, part.name.size());
  }
  std::string text = fmt::format("{:<{}} {:>9.1f} ms\n", "start", width + 2, total_us / 1e3);
  for (const Part& part : parts) {
    text += fmt::format("  {:<{}} {:>9.1f} ms {:>5.1f} %\n", part.name, width, part.us / 1e3,
                        total_us == 0 ? 0.0 : 100.0 * part.us / total_us);
  }
  return text;
}

}  // namespace fathom::client
