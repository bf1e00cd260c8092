// worker/progress_watch.h: whether the engine thread makes progress inside a step, for the probe
// /health/progress. The scheduler takes a rank for lost after a shorter time and ends its epoch,
// which ends the step; so a step that lasts longer here will not end by itself, and the process is
// to be restarted. Outside of a step, as while the model is loaded, there is nothing to watch.
// Thread: main calls Look; any thread asks.
#pragma once

#include <atomic>
#include <cstdint>

#include "common/clock.h"
#include "common/status.h"
#include "worker/progress.h"

namespace fathom::worker {

class ProgressWatch {
 public:
  // REQUIRES: both pointers outlive this object.
  ProgressWatch(const Progress* progress, const Clock* clock, int64_t quiet_us = 30'000'000)
      : progress_(*progress), clock_(*clock), quiet_us_(quiet_us) {}

  // Compares the progress word with that of the last call. Must be called before the first step,
  // and then several times within quiet_us.
  void Look() {
    const uint64_t word = progress_.word.load();
    const bool moves = progress_.phase.load() != Phase::kStepping || word != word_;
    word_ = word;
    if (moves) moved_us_.store(clock_.Now());
  }

  absl::Status Moves() const {
    const int64_t still_us = clock_.Now() - moved_us_.load();
    const bool in_step = progress_.phase.load() == Phase::kStepping;
    if (!in_step || still_us <= quiet_us_) return absl::OkStatus();
    return Internal("step {} has made no progress for {:.1f} s", progress_.Now().step.value,
                    static_cast<double>(still_us) * 1e-6);
  }

 private:
  const Progress& progress_;
  const Clock& clock_;
  const int64_t quiet_us_;
  uint64_t word_ = 0;
  std::atomic<TimeUs> moved_us_ = clock_.Now();
};

}  // namespace fathom::worker
