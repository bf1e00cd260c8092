#include "scheduler/core/forecast.h"

namespace fathom::scheduler {

void Forecast::Reset(TimeUs now) {
  *this = Forecast();
  window_us_ = now;
}

void Forecast::NoteWaiting(bool waits, TimeUs now) {
  if (!waited_) backlog_ = false;
  if (now - window_us_ >= kWindowUs) {
    windows_ = backlog_ ? windows_ + 1 : 0;
    if (backlog_) {
      left_per_us_.Add(static_cast<double>(left_) / static_cast<double>(now - window_us_), now);
    }
    window_us_ = now;
    left_ = 0;
    backlog_ = waits;
  }
  waited_ = waits;
}

void Forecast::NoteStep(bool full, int64_t us, TimeUs now) {
  const double per_us = 1.0 / static_cast<double>(std::max<int64_t>(us, 1));
  steps_per_us_.Add(per_us, now);
  if (full) full_steps_per_us_.Add(per_us, now);
}

int64_t Forecast::LeastWaitUs(int32_t ahead, TimeUs now) {
  const std::optional<double> rate = left_per_us_.Value(now);
  if (windows_ < kWindowsMin || !rate || *rate <= 0) return 0;
  return static_cast<int64_t>(std::min(ahead / *rate, 1e15));
}

int64_t Forecast::LeastFirstTokenUs(int32_t ahead, int32_t full_steps, TimeUs now) {
  const std::optional<double> step = steps_per_us_.Value(now);
  const std::optional<double> full = full_steps_per_us_.Value(now);
  int64_t us = LeastWaitUs(ahead, now);
  if (step) us += static_cast<int64_t>(1 / *step);
  // The last step of the prompt is the one above.
  if (full && full_steps > 1) us += static_cast<int64_t>((full_steps - 1) / *full);
  return us;
}

}  // namespace fathom::scheduler
