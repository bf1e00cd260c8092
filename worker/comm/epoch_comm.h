// worker/comm/epoch_comm.h: the Comm that a decoder keeps for its whole life. The transport below
// it (shared memory) is a new one in each epoch. It counts collectives and the time spent in them.
// Thread: the engine thread. REQUIRES for every collective: a target is set.
#pragma once

#include <cstdint>
#include <span>

#include "common/check.h"
#include "common/clock.h"
#include "worker/comm/comm.h"
#include "worker/progress.h"

namespace fathom::worker {

class EpochComm final : public Comm {
 public:
  // `clock` and `progress` outlive it.
  EpochComm(int rank, int size, const Clock* clock, Progress* progress)
      : rank_(rank), size_(size), clock_(clock), progress_(progress) {}

  // Starts an epoch and sets the counters to 0. `target` has the same rank and size and lives until
  // the next call.
  void SetTarget(Comm* target) {
    FATHOM_CHECK(target == nullptr || (target->rank() == rank_ && target->size() == size_));
    target_ = target;
    collectives_ = 0;
    collective_us_ = 0;
    progress_->collective.store(0, std::memory_order_relaxed);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status AllReduceSum(std::span<float> values) override {
    return Counted([&] { return target_->AllReduceSum(values); });
  }
  absl::Status AllGather(std::span<const float> mine, std::span<float> all) override {
    return Counted([&] { return target_->AllGather(mine, all); });
  }

  uint64_t collectives() const { return collectives_; }
  int64_t collective_us() const { return collective_us_; }

 private:
  template <class Call>
  absl::Status Counted(Call&& call) {
    FATHOM_CHECK(target_ != nullptr);
    const TimeUs begin = clock_->Now();
    absl::Status status = call();
    collective_us_ += clock_->Now() - begin;
    progress_->collective.store(++collectives_, std::memory_order_relaxed);
    return status;
  }

  const int rank_;
  const int size_;
  const Clock* const clock_;
  Progress* const progress_;
  Comm* target_ = nullptr;
  uint64_t collectives_ = 0;
  int64_t collective_us_ = 0;
};

}  // namespace fathom::worker
