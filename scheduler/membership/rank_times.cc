#include "scheduler/membership/rank_times.h"

#include <algorithm>

namespace fathom::scheduler {
namespace {

constexpr double kWeight = 1.0 / 16;  // Of the newest step in the mean.

}  // namespace

RankTimes::RankTimes(const GroupShape& shape)
    : shape_(shape),
      ranks_(static_cast<size_t>(shape.ranks())),
      answered_(ranks_.size(), 0),
      stages_(static_cast<size_t>(shape.pp)) {}

void RankTimes::Add(int32_t rank, const StepTimings& timings) {
  RankTime& time = ranks_[static_cast<size_t>(rank)];
  const uint64_t step = answered_[static_cast<size_t>(rank)]++;
  const auto step_us = static_cast<double>(timings.read_to_write_us);
  time.step_us += step == 0 ? step_us : kWeight * (step_us - time.step_us);
  time.collective_us_total += timings.collective_us;
  if (shape_.tp == 1) return;

  Stage& stage = stages_[static_cast<size_t>(shape_.StageOf(rank))];
  const auto place = static_cast<size_t>(step - stage.first);
  if (place == stage.pending.size()) stage.pending.push_back({.missing = shape_.tp, .least = {}});
  Pending& pending = stage.pending[place];
  if (pending.least_rank < 0 || timings.collective_us < pending.least.collective_us) {
    if (pending.least_rank >= 0) pending.second_us = pending.least.collective_us;
    pending.least_rank = rank;
    pending.least = timings;
  } else {
    pending.second_us = std::min(pending.second_us, timings.collective_us);
  }
  --pending.missing;
  // Each rank answers its steps in order, so the first pending step is complete before the others.
  while (!stage.pending.empty() && stage.pending.front().missing == 0) {
    const Pending& done = stage.pending.front();
    const int64_t more_us = done.second_us - done.least.collective_us;
    if (more_us > 0 && 2 * more_us >= done.least.read_to_write_us) {
      ++ranks_[static_cast<size_t>(done.least_rank)].straggler_steps_total;
    }
    stage.pending.pop_front();
    ++stage.first;
  }
}

}  // namespace fathom::scheduler
