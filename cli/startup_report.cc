#include "cli/startup_report.h"

#include <fmt/format.h>

namespace fathom::client {

std::string TextOf(const GroupTimeline& start) {
  std::string text =
      fmt::format("group {} (epoch {}): {} ranks up after {:.2f} s, rank {} was ready last\n",
                  start.group, start.epoch, start.ranks.size(),
                  static_cast<double>(start.total_us) * 1e-6, start.slowest_rank);
  for (const RankTimeline& rank : start.ranks) {
    text += fmt::format("  rank {} on {}{}:", rank.rank, rank.host,
                        rank.rank == start.slowest_rank ? " (slowest)" : "");
    bool first = true;
    for (const StartPart& part : rank.parts) {
      text += fmt::format("{} {} {:.2f}", first ? "" : ",", part.phase,
                          static_cast<double>(part.at_us) * 1e-6);
      if (part.bytes > 0)
        text += fmt::format(" ({:.2f} GB)", static_cast<double>(part.bytes) * 1e-9);
      first = false;
    }
    text += '\n';
  }
  return text;
}

}  // namespace fathom::client
