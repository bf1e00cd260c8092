#include "cli/serve/rank_watch.h"

#include <algorithm>

namespace fathom::client {

RankWatch::RankWatch(RankWatchOptions options, int workers)
    : options_(options),
      pause_us_(std::min(options.every_us, options.limit_us / options.failures_min) / workers),
      workers_(workers) {}

int RankWatch::WaitMs(TimeUs now) const {
  if (options_.limit_us == 0) return -1;
  if (!asked_us_) return static_cast<int>(pause_us_ / 1000);
  return static_cast<int>(std::max<int64_t>(0, *asked_us_ + pause_us_ - now + 999) / 1000);
}

std::optional<int> RankWatch::Due(TimeUs now) {
  if (options_.limit_us == 0) return std::nullopt;
  if (asked_us_ && now < *asked_us_ + pause_us_) return std::nullopt;
  asked_us_ = now;
  const int worker = static_cast<int>(next_);
  next_ = (next_ + 1) % workers_.size();
  return worker;
}

bool RankWatch::Take(int worker, TimeUs life_us, int status, TimeUs now) {
  Worker& one = workers_[worker];
  if (one.life_us != life_us || (status != 0 && status != 503)) one = {.life_us = life_us};
  if (status != 0 && status != 503) return false;
  if (one.failures++ == 0) one.first_us = now;
  if (one.failures < options_.failures_min || now - one.first_us < options_.limit_us) return false;
  one.failures = 0;
  return true;
}

}  // namespace fathom::client
