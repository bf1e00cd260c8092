// scheduler/membership/rank_times.h: how long the steps of each rank of a group take, and which
// rank the others wait for. Pure. Thread: not thread-safe.
//
// The ranks of a stage meet in collectives, so all of them take as long as the slowest one, and
// only the time in collectives differs: the slowest rank waits least. A rank is the straggler of a
// step if each other rank of its stage spent at least half of the step more in collectives than it
// did.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "cluster/plan.h"
#include "common/group_shape.h"

namespace fathom::scheduler {

struct RankTime {
  double step_us = 0;  // From the plan read to the result ready: a mean over about 16 steps.
  int64_t collective_us_total = 0;
  uint64_t straggler_steps_total = 0;
};

class RankTimes {
 public:
  explicit RankTimes(const GroupShape& shape);

  // The result of the rank's next step. Each rank's steps come in order.
  void Add(int32_t rank, const StepTimings& timings);

  const std::vector<RankTime>& ranks() const { return ranks_; }

 private:
  // A step that not every rank of the stage has answered.
  struct Pending {
    int32_t missing = 0;
    int32_t least_rank = -1;  // The rank with the least time in collectives.
    StepTimings least;
    int64_t second_us = INT64_MAX;  // The least time in collectives of the other ranks.
  };
  struct Stage {
    uint64_t first = 0;  // The number of pending.front().
    std::deque<Pending> pending;
  };

  GroupShape shape_;
  std::vector<RankTime> ranks_;
  std::vector<uint64_t> answered_;  // Steps of each rank.
  std::vector<Stage> stages_;
};

}  // namespace fathom::scheduler
