// worker/comm/epoch_comm.h: the Comm of a rank's stage and its links to the other stages, which a
// device keeps for its whole life. The transport below (shared memory) is a new one in each epoch.
// It counts the calls and the time spent in them; a call to another stage counts as a collective.
// Thread: the engine thread. REQUIRES for every call: a target is set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/check.h"
#include "common/clock.h"
#include "worker/comm/comm.h"
#include "worker/comm/stage_links.h"
#include "worker/progress.h"

namespace fathom::worker {

class EpochComm final : public Comm, public StageLinks {
 public:
  // `rank` of `size`: the tp rank. `clock` and `progress` outlive it.
  EpochComm(int rank, int size, const Clock* clock, Progress* progress, int stage = 0,
            int stages = 1)
      : rank_(rank),
        size_(size),
        stage_(stage),
        stages_(stages),
        clock_(clock),
        progress_(progress) {}

  // Starts an epoch and sets the counters to 0. `target` has the same rank and size; `links`, which
  // a group of one stage has not, are those of the rank. Both live until the next call.
  void SetTarget(Comm* target, StageLinks* links = nullptr) {
    FATHOM_CHECK(target == nullptr || (target->rank() == rank_ && target->size() == size_ &&
                                       (links != nullptr) == (stages_ > 1)));
    target_ = target;
    links_ = links;
    collectives_ = 0;
    collective_us_ = 0;
    progress_->collective.store(0, std::memory_order_relaxed);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int stage() const { return stage_; }
  int stages() const { return stages_; }
  bool is_first_stage() const { return stage_ == 0; }
  bool is_last_stage() const { return stage_ + 1 == stages_; }
  absl::Status AllReduceSum(std::span<float> values) override {
    return Counted([&] { return target_->AllReduceSum(values); });
  }
  absl::Status AllGather(std::span<const float> mine, std::span<float> all) override {
    return Counted([&] { return target_->AllGather(mine, all); });
  }
  absl::Status Send(std::span<const std::byte> bytes) override {
    const Progress::StageMessage under_way(progress_);
    return Counted([&] { return links_->Send(bytes); });
  }
  absl::Status Receive(std::span<std::byte> bytes) override {
    const Progress::StageMessage under_way(progress_);
    return Counted([&] { return links_->Receive(bytes); });
  }

  uint64_t collectives() const { return collectives_; }
  int64_t collective_us() const { return collective_us_; }

 private:
  template <class Call>
  absl::Status Counted(Call&& call) {
    FATHOM_CHECK(target_ != nullptr);
    const TimeUs begin = clock_->Now();
    progress_->collective.store(++collectives_, std::memory_order_relaxed);
    absl::Status status = call();
    collective_us_ += clock_->Now() - begin;
    return status;
  }

  const int rank_;
  const int size_;
  const int stage_;
  const int stages_;
  const Clock* const clock_;
  Progress* const progress_;
  Comm* target_ = nullptr;
  StageLinks* links_ = nullptr;
  uint64_t collectives_ = 0;  // Begun; between two calls also done.
  int64_t collective_us_ = 0;
};

}  // namespace fathom::worker
