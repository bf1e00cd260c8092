// cluster/rank_report.h: what a rank of a group does, as the scheduler knows it from the rank's
// last heartbeat, for `fathom status`, logs and messages. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cluster/messages.h"
#include "common/types.h"

namespace fathom {

struct RankReport {
  int32_t group = 0;
  int32_t rank = 0;
  std::string process_id;
  std::string host;
  Phase phase = Phase::kUnspecified;
  StepId step;  // The step in work, or the last one.
  RankWork work;
  int64_t still_us = 0;      // Inside a step: the time without progress.
  int32_t waits_for = -1;    // The rank that this one waits for; -1: none.
  std::string address = {};  // host:port of the worker's own port, for tools.
  std::string card = {};     // The GPU's name; empty on the CPU.
  bool operator==(const RankReport&) const = default;
};
inline constexpr size_t kRankReportsMax = 1024;  // The ranks that a scheduler tells about.

// "LOADING", "STEPPING"; for people and for the public API.
const char* NameOf(Phase phase);
// "attention", "MLP", "between steps".
const char* NameOf(Activity activity);

// "step 42, layer 3 attention, collective 7 of the step, no progress for 3.2 s, waits for rank 0".
std::string DescribeWork(const RankReport& report);

}  // namespace fathom
