// common/loop_watch.h: whether a loop still turns, for the probe of a process. The thread of the
// loop calls Turn in each round; any thread asks. Before the first round the loop counts as
// turning, because a process that loads a model for minutes is alive.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "common/clock.h"
#include "common/status.h"

namespace fathom {

class LoopWatch {
 public:
  // `name` is for the error: "main loop". `quiet_us`: a loop without a round for so long does not
  // turn. REQUIRES: `clock` outlives this object.
  LoopWatch(std::string name, const Clock* clock, int64_t quiet_us = 10'000'000)
      : name_(std::move(name)), clock_(*clock), quiet_us_(quiet_us) {}

  void Turn() { turned_us_.store(clock_.Now(), std::memory_order_relaxed); }

  absl::Status Turns() const {
    const TimeUs turned_us = turned_us_.load(std::memory_order_relaxed);
    const int64_t since_us = clock_.Now() - turned_us;
    if (turned_us == kNever || since_us <= quiet_us_) return absl::OkStatus();
    return Internal("the {} of this process has made no round for {:.1f} s", name_,
                    static_cast<double>(since_us) * 1e-6);
  }

 private:
  static constexpr TimeUs kNever = -1;

  const std::string name_;
  const Clock& clock_;
  const int64_t quiet_us_;
  std::atomic<TimeUs> turned_us_{kNever};
};

}  // namespace fathom
