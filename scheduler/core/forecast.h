// scheduler/core/forecast.h: the least time in which a new request can get its first token, from
// what was measured in the last 20 s: how fast sequences left the queue while others waited, and
// how long steps took. It is a lower bound and no estimate: it takes the fastest second and the
// shortest step, so that a request is refused because of its deadline only if the deadline is
// surely missed. Pure: time is an argument. Thread: not thread-safe; owned by the driver thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "common/types.h"

namespace fathom::scheduler {

// The greatest value of the last 10 to 20 s.
class RecentMax {
 public:
  void Add(double value, TimeUs now) {
    Turn(now);
    latest_ = std::max(latest_.value_or(value), value);
  }
  std::optional<double> Value(TimeUs now) {
    Turn(now);
    return latest_ && before_ ? std::max(*latest_, *before_) : latest_ ? latest_ : before_;
  }

 private:
  static constexpr TimeUs kHalfUs = 10'000'000;
  void Turn(TimeUs now) {
    if (now - turned_us_ < kHalfUs) return;
    before_ = now - turned_us_ < 2 * kHalfUs ? latest_ : std::nullopt;
    latest_.reset();
    turned_us_ = now;
  }
  std::optional<double> latest_, before_;
  TimeUs turned_us_ = 0;
};

class Forecast {
 public:
  // The groups have changed, so what was measured says nothing about the future.
  void Reset(TimeUs now);
  // A sequence left the queue.
  void Left() { ++left_; }
  // At the end of each event: whether sequences wait for a slot that they may take.
  void NoteWaiting(bool waits, TimeUs now);
  // A step of so many rows took `us` after the later of its plan and the result of the step before
  // it. `full`: it had at least half of the rows that a step may have.
  void NoteStep(bool full, int64_t us, TimeUs now);

  // `ahead`: sequences that are surely admitted before. `full_steps`: steps that the prompt fills.
  // 0: nothing is known.
  int64_t LeastFirstTokenUs(int32_t ahead, int32_t full_steps, TimeUs now);
  // The part of it that is spent in the queue.
  int64_t LeastWaitUs(int32_t ahead, TimeUs now);

 private:
  static constexpr TimeUs kWindowUs = 1'000'000;
  static constexpr int32_t kWindowsMin = 5;  // Before a rate is believed.

  // A window in which somebody always waited has the rate at which the queue can become shorter.
  TimeUs window_us_ = 0;
  bool waited_ = false;   // Since the last NoteWaiting.
  bool backlog_ = false;  // In the whole of the window so far.
  int32_t left_ = 0;
  int32_t windows_ = 0;  // Consecutive ones with a backlog.
  RecentMax left_per_us_, steps_per_us_, full_steps_per_us_;
};

}  // namespace fathom::scheduler
