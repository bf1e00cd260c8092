#include "scheduler/core/retry_promises.h"

#include <algorithm>

#include "common/retry_delay.h"

namespace fathom::scheduler {

void DrainRate::Note(int64_t used, int64_t freed, TimeUs now) {
  if (used_) time_us_ += static_cast<double>(now - since_us_);
  since_us_ = now;
  used_ = used > 0;
  units_ += static_cast<double>(freed);
  if (time_us_ <= kMeanUs) return;
  units_ *= kMeanUs / time_us_;
  time_us_ = kMeanUs;
}

bool RetryPromises::Admits(const SessionKey& key, int64_t used, int64_t amount, int64_t max,
                           TimeUs now) {
  Expire(now);
  if (used == 0) return true;
  int64_t others = promised_;
  if (const auto promise = promises_.find(key); promise != promises_.end()) {
    if (now >= promise->second.due_us && used + amount <= max) return true;
    others -= promise->second.amount;
  }
  return used + others + amount <= max || used + amount <= max / kOpenPart;
}

int64_t RetryPromises::Refuse(const SessionKey& key, int64_t amount, int64_t wait_us,
                              int64_t hold_us, TimeUs now) {
  const auto old = promises_.find(key);
  if (old != promises_.end() && now < old->second.due_us) {  // It came too early.
    return std::max(kRetryMinMs, (old->second.due_us - now) / 1000 + 1);
  }
  // Places become free in bursts, so the first of a line comes somewhat later than the mean says.
  const TimeUs first_us = now + wait_us + kBurstUs;
  TimeUs due_us = std::max(end_us_, first_us);
  if (old != promises_.end()) {  // Those that were promised later places do not wait for it again.
    ++counts_.broken;
    due_us = first_us;
    Drop(old);
  }
  due_us = std::min(due_us, now + kAheadMaxUs);
  // Clients that are refused at one time come back at different times, and never too early.
  const int64_t spread_us = std::min<int64_t>((due_us - now) / 8, 4'000'000) + 20'000;
  const int64_t late_us =
      static_cast<int64_t>(ScrambledSalt(++refused_) % static_cast<uint64_t>(spread_us));
  if (due_us < now + kAheadMaxUs && promises_.size() < kPromisesMax) {
    end_us_ = std::max(end_us_, due_us + hold_us);
    const TimeUs expires_us = due_us + spread_us + (due_us - now) / 8 + kGraceUs;
    promises_.emplace(key, Promise{due_us, expires_us, amount, hold_us});
    expiries_.emplace(expires_us, key);
    promised_ += amount;
  }
  return std::max(kRetryMinMs, (due_us - now + late_us) / 1000 + 1);
}

void RetryPromises::Take(const SessionKey& key) {
  const auto promise = promises_.find(key);
  if (promise == promises_.end()) return;
  ++counts_.kept;
  Drop(promise);
}

void RetryPromises::Drop(Promises::iterator promise) {
  promised_ -= promise->second.amount;
  expiries_.erase({promise->second.expires_us, promise->first});
  promises_.erase(promise);
}

void RetryPromises::Expire(TimeUs now) {
  while (!expiries_.empty() && expiries_.begin()->first <= now) {
    const auto promise = promises_.find(expiries_.begin()->second);
    end_us_ -= promise->second.hold_us;  // Nobody takes this place, so the line is shorter.
    Drop(promise);
  }
}

}  // namespace fathom::scheduler
