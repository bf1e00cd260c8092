// cluster/group_start.h: the parts of a worker's start, and the start of a group as one timeline of
// all its ranks. Plain data with the fields of cluster.proto. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/types.h"

namespace fathom {

// In the order in which a worker with a known rank passes them. A worker without one loads its
// weights after it has joined.
enum class StartPhase {
  kUnspecified,
  kProcess,     // main runs.
  kDevice,      // The device is known and usable.
  kCheckpoint,  // Configuration and headers of the weight files were checked.
  kMemory,      // The memory plan fits.
  kWeights,     // The weights are loaded.
  kRegistered,
  kJoined,     // The worker took its seat.
  kConnected,  // The collectives of the group are connected.
  kReady,
};
// "process", "weights", "communicator"; for people and for the public API.
const char* NameOf(StartPhase phase);

// The end of a part of a start.
struct StartMark {
  StartPhase phase = StartPhase::kUnspecified;
  int64_t at_us = 0;  // Since the start of the process; in a GroupStart: since its begin.
  int64_t bytes = 0;  // Of the weights; 0: the part has none.
  bool operator==(const StartMark&) const = default;
};
inline constexpr int32_t kStartMarksMax = 16;

struct RankStart {
  int32_t rank = 0;
  std::string process_id;
  std::string host;
  std::vector<StartMark> marks;  // Ordered by time; none from before the begin of the start.
  bool operator==(const RankStart&) const = default;
};

// The last start of a group that is up. It begins when the first process starts that was in no
// group before; if all were, when the group is formed.
struct GroupStart {
  int32_t group = 0;
  EpochId epoch;
  int64_t us = 0;  // From its begin to the group being up.
  std::vector<RankStart> ranks;
  bool operator==(const GroupStart&) const = default;
};
inline constexpr size_t kGroupStartsMax = 64;  // The groups whose starts a scheduler tells.

// The index in `start.ranks` of the rank whose last mark is the latest. REQUIRES: there are ranks.
size_t SlowestOf(const GroupStart& start);

// The part of the rank's start that took longest: "weights (7.1 s, 13.50 GB)"; "" without marks.
std::string LongestPart(const RankStart& rank);

}  // namespace fathom
