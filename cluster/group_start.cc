#include "cluster/group_start.h"

#include <fmt/format.h>

#include "common/check.h"

namespace fathom {
namespace {

int64_t EndOf(const RankStart& rank) { return rank.marks.empty() ? 0 : rank.marks.back().at_us; }

}  // namespace

const char* NameOf(StartPhase phase) {
  switch (phase) {
    case StartPhase::kUnspecified:
      break;
    case StartPhase::kProcess:
      return "process";
    case StartPhase::kDevice:
      return "device";
    case StartPhase::kCheckpoint:
      return "checkpoint";
    case StartPhase::kMemory:
      return "memory";
    case StartPhase::kWeights:
      return "weights";
    case StartPhase::kRegistered:
      return "registered";
    case StartPhase::kJoined:
      return "joined";
    case StartPhase::kConnected:
      return "communicator";
    case StartPhase::kReady:
      return "ready";
  }
  return "unknown";
}

size_t SlowestOf(const GroupStart& start) {
  FATHOM_CHECK(!start.ranks.empty());
  size_t slowest = 0;
  for (size_t i = 1; i < start.ranks.size(); ++i) {
    if (EndOf(start.ranks[i]) > EndOf(start.ranks[slowest])) slowest = i;
  }
  return slowest;
}

std::string LongestPart(const RankStart& rank) {
  const StartMark* longest = nullptr;
  int64_t longest_us = -1, last_us = 0;
  for (const StartMark& mark : rank.marks) {
    if (mark.at_us - last_us > longest_us) {
      longest_us = mark.at_us - last_us;
      longest = &mark;
    }
    last_us = mark.at_us;
  }
  if (longest == nullptr) return {};
  const double seconds = static_cast<double>(longest_us) * 1e-6;
  if (longest->bytes == 0) return fmt::format("{} ({:.1f} s)", NameOf(longest->phase), seconds);
  return fmt::format("{} ({:.1f} s, {:.2f} GB)", NameOf(longest->phase), seconds,
                     static_cast<double>(longest->bytes) * 1e-9);
}

}  // namespace fathom
