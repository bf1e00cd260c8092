// tests/worker/plan_channel.h: a StepChannel in this process for the plans and results of one
// epoch, and functions that make plans for the tests of the step loop.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "tests/worker/fake_device.h"
#include "tests/worker/naive_sequence.h"
#include "worker/engine/epoch.h"
#include "worker/engine/step_channel.h"

namespace fathom::worker {

inline constexpr EngineLimits kLoopLimits{.context_tokens = 96,
                                          .block_tokens = 16,
                                          .pool_blocks = 64,
                                          .slots = 8,
                                          .step_tokens = 48,
                                          .vocab = kFakeVocab};

inline GroupSeat LoopSeat() {
  GroupSeat seat;
  seat.term = {3};
  seat.epoch = {5};
  seat.limits = kLoopLimits;
  return seat;
}

inline StepPlan PlanOf(uint64_t step) {
  StepPlan plan;
  plan.term = {3};
  plan.epoch = {5};
  plan.step = {step};
  return plan;
}

// Admits a greedy sequence with these blocks.
inline void AdmitTo(StepPlan* plan, int32_t slot, std::vector<TokenId> prompt,
                    const std::vector<int32_t>& blocks) {
  Admit admit;
  admit.slot = {slot};
  admit.request.sampling.temperature = 0;
  admit.prompt_tokens = static_cast<int32_t>(prompt.size());
  admit.ids = std::move(prompt);
  plan->admits.push_back(std::move(admit));
  Extend& extend = plan->extends.emplace_back(Extend{{slot}, {}});
  for (const int32_t block : blocks) extend.block_ids.push_back({block});
}

inline TokenId GreedyNext(const std::vector<TokenId>& ids) {
  Naive naive{.request = {}, .prompt_tokens = static_cast<int32_t>(ids.size()), .ids = ids};
  naive.request.sampling.temperature = 0;
  return naive.Next();
}

class PlanChannel final : public StepChannel {
 public:
  // Read fails when the epoch is aborted.
  explicit PlanChannel(Epoch* epoch) : epoch_(*epoch) {
    callback_ = epoch_.OnAbort([this] { End(Cancelled("the stream was cancelled")); });
  }
  ~PlanChannel() override { epoch_.Forget(callback_); }

  void Send(const StepPlan& plan) { SendAfterResults(0, plan); }
  // Read returns `plan` after `results` results were written.
  void SendAfterResults(size_t results, const StepPlan& plan) {
    Change([&] { plans_.push_back({results, plan}); });
  }
  // After the plans so far, Read returns `why`.
  void End(const absl::Status& why) {
    Change([&] { ended_ = why; });
  }
  void FailWriteAfter(size_t results) {
    Change([&] { writes_ = results; });
  }
  void WaitReads(size_t plans) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return reads_ >= plans; });
  }
  // Waits until Read waits for plan number `plan`, from 0.
  void WaitReading(size_t plan) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return reading_ && reads_ == plan; });
  }
  std::vector<StepResult> results() {
    const std::lock_guard lock(mutex_);
    return results_;
  }

  absl::StatusOr<StepPlan> Read() override {
    std::unique_lock lock(mutex_);
    reading_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] {
      return epoch_.aborted() ||
             (plans_.empty() ? !ended_.ok() : results_.size() >= plans_.front().first);
    });
    reading_ = false;
    if (epoch_.aborted() || plans_.empty()) return ended_;
    StepPlan plan = std::move(plans_.front().second);
    plans_.pop_front();
    ++reads_;
    changed_.notify_all();
    return plan;
  }
  absl::Status Write(const StepResult& result) override {
    const std::lock_guard lock(mutex_);
    if (results_.size() >= writes_) return Unavailable("no more results");
    results_.push_back(result);
    changed_.notify_all();
    return absl::OkStatus();
  }

 private:
  template <class Work>
  void Change(Work work) {
    const std::lock_guard lock(mutex_);
    work();
    changed_.notify_all();
  }

  Epoch& epoch_;
  int callback_ = 0;
  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::deque<std::pair<size_t, StepPlan>> plans_;
  std::vector<StepResult> results_;
  bool reading_ = false;
  size_t reads_ = 0;
  size_t writes_ = SIZE_MAX;
  absl::Status ended_;
};

}  // namespace fathom::worker
