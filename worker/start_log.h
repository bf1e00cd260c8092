// worker/start_log.h: when the parts of this worker's start ended, which it tells the scheduler in
// its Hello and when it is ready (docs/OPERATIONS.md, "Start of a group"). A part that happens
// again in another epoch replaces its older mark. Thread: any.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "cluster/group_start.h"
#include "common/clock.h"

namespace fathom::worker {

class StartLog {
 public:
  // `age_us`: how long ago the process started. `clock` outlives the log.
  StartLog(const Clock* clock, int64_t age_us)
      : clock_(*clock), started_us_(clock->Now() - age_us) {}

  // The part ends now. `bytes`: of the weights.
  void Mark(StartPhase phase, int64_t bytes = 0) {
    const int64_t at_us = AgeUs();
    const std::lock_guard lock(mutex_);
    marks_.at(static_cast<size_t>(phase)) = {phase, at_us, bytes};
  }
  // In the order of the phases.
  std::vector<StartMark> Marks() const {
    const std::lock_guard lock(mutex_);
    std::vector<StartMark> marks;
    for (const StartMark& mark : marks_) {
      if (mark.phase != StartPhase::kUnspecified) marks.push_back(mark);
    }
    return marks;
  }
  // The time since the process started.
  int64_t AgeUs() const { return clock_.Now() - started_us_; }

 private:
  const Clock& clock_;
  const TimeUs started_us_;
  mutable std::mutex mutex_;  // Guards what follows.
  std::array<StartMark, static_cast<size_t>(StartPhase::kReady) + 1> marks_{};
};

}  // namespace fathom::worker
