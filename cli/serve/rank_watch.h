// cli/serve/rank_watch.h: finds workers that run but do not work: they do not answer, or say that a
// step stands still. The scheduler forms their group again without them, but only their
// supervisor can start them again. Workers are asked one after the other, so that at most one
// answer is waited for. Pure: time is an argument.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/clock.h"

namespace fathom::client {

struct RankWatchOptions {
  int64_t limit_us = 30'000'000;  // So long without a good answer; 0: nothing is watched.
  int64_t every_us = 5'000'000;   // Each worker is asked so often, or as often as limit_us needs.
  int failures_min = 3;
};

class RankWatch {
 public:
  RankWatch(RankWatchOptions options, int workers);

  // How long until a worker is due, at least 0; -1: never.
  int WaitMs(TimeUs now) const;
  // The worker to ask now, at most once; nullopt: none is due.
  std::optional<int> Due(TimeUs now);
  // The answer of `worker`, whose process started at `life_us`: the HTTP status of
  // /health/progress, 0 without an answer. Only 0 and 503 are bad. Returns whether the process must
  // end.
  bool Take(int worker, TimeUs life_us, int status, TimeUs now);

 private:
  struct Worker {
    TimeUs life_us = 0;
    int failures = 0;  // Consecutive ones in this life.
    TimeUs first_us = 0;
  };
  const RankWatchOptions options_;
  const int64_t pause_us_;  // Between two workers.
  std::vector<Worker> workers_;
  size_t next_ = 0;
  std::optional<TimeUs> asked_us_;
};

}  // namespace fathom::client
