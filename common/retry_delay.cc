#include "common/retry_delay.h"

#include <algorithm>

namespace fathom {
namespace {

constexpr int64_t kAwayMinMs = 100;
constexpr int64_t kAwayMaxMs = 5'000;
// Bounds of the interval: many places that become free at once must not make it zero, and a quiet
// hour must not make it an hour.
constexpr double kIntervalMinUs = 100;
constexpr double kIntervalMaxUs = 10'000'000;

}  // namespace

uint64_t ScrambledSalt(uint64_t salt) {
  uint64_t z = salt + 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

int64_t JitteredRetryMs(int64_t ms, uint64_t salt) {
  ms = std::clamp(ms, kRetryMinMs, kRetryMaxMs);
  const int64_t quarter = ms / 4;
  const auto move =
      static_cast<int64_t>(ScrambledSalt(salt) % static_cast<uint64_t>(2 * quarter + 1));
  return std::clamp(ms - quarter + move, kRetryMinMs, kRetryMaxMs);
}

int64_t RetryWhileAwayMs(int64_t away_us, uint64_t salt) {
  return JitteredRetryMs(std::clamp(away_us / 1000, kAwayMinMs, kAwayMaxMs), salt);
}

void RetryLine::OnFreed(TimeUs now) {
  if (freed_us_ != 0) {
    const double interval =
        std::clamp(static_cast<double>(now - freed_us_), kIntervalMinUs, kIntervalMaxUs);
    interval_us_ += kWeight * (interval - interval_us_);
  }
  freed_us_ = now;
}

int64_t RetryLine::OnRefused(TimeUs now) {
  const TimeUs last = now + kRetryMaxMs * 1000;  // A longer line continues from this time.
  end_us_ = std::min(std::max(end_us_, now) + static_cast<int64_t>(interval_us_), last);
  return JitteredRetryMs((end_us_ - now) / 1000, ++refused_);
}

}  // namespace fathom
