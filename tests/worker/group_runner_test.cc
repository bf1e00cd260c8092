// Two ranks of one group as threads, with a scheduler in this process. They connect through shared
// memory, run the same plans, leave a collective when the epoch ends, and take the next seat.
#include "worker/cluster/group_runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "tests/worker/fake_decoder.h"
#include "worker/cpu/cpu_device.h"

namespace fathom::worker {
namespace {

constexpr EngineLimits kLimits{.context_tokens = 96,
                               .block_tokens = 16,
                               .pool_blocks = 64,
                               .slots = 4,
                               .step_tokens = 48,
                               .vocab = kFakeVocab};
constexpr int kRanks = 2;

// The messages to and from the ranks, under one lock.
class FakeScheduler {
 public:
  explicit FakeScheduler(std::vector<Membership*> ranks) : ranks_(std::move(ranks)) {}

  // Gives every rank a seat in a new epoch.
  void Seat(uint64_t epoch, EngineLimits limits = kLimits) {
    std::lock_guard lock(seating_);
    for (int rank = 0; rank < kRanks; ++rank) {
      GroupSeat seat;
      seat.term = {1};
      seat.epoch = {epoch};
      seat.rank = rank;
      seat.tp = kRanks;
      seat.peers = {{"0", "here"}, {"1", "here"}};
      seat.limits = limits;
      ASSERT_EQ(ranks_[static_cast<size_t>(rank)]->Hear({1}), TermVerdict::kObeyed);
      ranks_[static_cast<size_t>(rank)]->Join(seat, 0);
    }
  }
  void Abort(uint64_t epoch) {
    for (Membership* rank : ranks_) rank->Abort({1}, {epoch}, "a test ends it");
  }
  void Send(int rank, const StepPlan& plan) {
    {
      std::lock_guard lock(mutex_);
      plans_[{plan.epoch.value, rank}].push_back(plan);
    }
    changed_.notify_all();
  }
  StepResult WaitResult(uint64_t epoch, int rank) {
    std::unique_lock lock(mutex_);
    auto& results = results_[{epoch, rank}];
    changed_.wait(lock, [&] { return !results.empty(); });
    StepResult result = std::move(results.front());
    results.pop_front();
    return result;
  }
  void WaitReady(uint64_t epoch) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ready_.contains({epoch, 0}) && ready_.contains({epoch, 1}); });
  }
  std::string WaitFailed(uint64_t epoch, int rank) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return failed_.contains({epoch, rank}); });
    return failed_[{epoch, rank}];
  }
  size_t results(uint64_t epoch, int rank) {
    std::lock_guard lock(mutex_);
    return results_[{epoch, rank}].size();
  }

 private:
  friend class FakeControl;
  friend class FakeChannel;
  using Key = std::pair<uint64_t, int>;  // Epoch, rank.

  const std::vector<Membership*> ranks_;
  std::mutex seating_;  // Held until all ranks have their seats; no message may come before.
  std::mutex mutex_;    // Guards what follows.
  std::condition_variable changed_;
  std::map<Key, std::deque<StepPlan>> plans_;
  std::map<Key, std::deque<StepResult>> results_;
  std::map<Key, std::string> failed_;
  std::set<Key> ready_;
};

class FakeChannel final : public StepChannel {
 public:
  FakeChannel(FakeScheduler* scheduler, Epoch& epoch)
      : scheduler_(*scheduler), epoch_(epoch), key_(epoch.seat().epoch.value, epoch.seat().rank) {
    callback_ = epoch.OnAbort([this] {
      std::lock_guard lock(scheduler_.mutex_);
      ended_ = true;
      scheduler_.changed_.notify_all();
    });
  }
  ~FakeChannel() override { epoch_.Forget(callback_); }
  absl::StatusOr<StepPlan> Read() override {
    std::unique_lock lock(scheduler_.mutex_);
    auto& plans = scheduler_.plans_[key_];
    scheduler_.changed_.wait(lock, [&] { return ended_ || !plans.empty(); });
    if (ended_) return Cancelled("the stream was cancelled");
    StepPlan plan = std::move(plans.front());
    plans.pop_front();
    return plan;
  }
  absl::Status Write(const StepResult& result) override {
    std::lock_guard lock(scheduler_.mutex_);
    scheduler_.results_[key_].push_back(result);
    scheduler_.changed_.notify_all();
    return absl::OkStatus();
  }

 private:
  FakeScheduler& scheduler_;
  Epoch& epoch_;
  const std::pair<uint64_t, int> key_;
  int callback_ = 0;
  bool ended_ = false;  // Guarded by the scheduler's mutex.
};

class FakeControl final : public Control {
 public:
  explicit FakeControl(FakeScheduler* scheduler) : scheduler_(*scheduler) {}
  void SendExchange(const Epoch& epoch, int32_t round, const std::string& bytes) override {
    const GroupSeat& seat = epoch.seat();
    std::lock_guard lock(scheduler_.seating_);
    for (int rank = 0; rank < kRanks; ++rank) {
      if (rank == seat.rank) continue;
      scheduler_.ranks_[static_cast<size_t>(rank)]->PushExchange(seat.epoch,
                                                                 {round, seat.rank, bytes});
    }
  }
  void SendReady(const Epoch& epoch) override {
    const GroupSeat& seat = epoch.seat();
    std::lock_guard lock(scheduler_.mutex_);
    scheduler_.ready_.insert({seat.epoch.value, seat.rank});
    scheduler_.changed_.notify_all();
  }
  void SendFailed(const Epoch& epoch, const std::string& message) override {
    const GroupSeat& seat = epoch.seat();
    std::lock_guard lock(scheduler_.mutex_);
    scheduler_.failed_[{seat.epoch.value, seat.rank}] = message;
    scheduler_.changed_.notify_all();
  }
  std::unique_ptr<StepChannel> DialSteps(Epoch& epoch) override {
    return std::make_unique<FakeChannel>(&scheduler_, epoch);
  }

 private:
  FakeScheduler& scheduler_;
};

// One worker process, as a thread.
struct Worker {
  explicit Worker(int rank_index) : rank(rank_index) {}
  void Start(FakeScheduler* scheduler) {
    control = std::make_unique<FakeControl>(scheduler);
    runner = std::make_unique<GroupRunner>(
        GroupRunnerOptions{kRanks, kLimits}, &membership, control.get(),
        [this](int seat_rank) -> absl::StatusOr<Device*> {
          FATHOM_CHECK(seat_rank == rank);
          return &device;
        },
        &clock, &progress, &stop, nullptr);
    thread = std::thread([this] { ended = runner->Run(); });
  }

  const int rank;
  RealClock clock;
  Progress progress;
  Membership membership;
  EpochComm comm{rank, kRanks, &clock, &progress};
  const std::unique_ptr<KvCache> kv =
      KvCache::Allocate(FakeDecoder::Shape(kLimits.block_tokens, kLimits.pool_blocks)).value();
  FakeDecoder decoder{kv.get(), &comm, 48};
  CpuDevice device{CpuDeviceParts{&decoder, kv.get(), &comm, &clock, kLimits, 48}};
  std::atomic<bool> stop{false};
  absl::Status ended = Internal("did not end");
  std::unique_ptr<FakeControl> control;
  std::unique_ptr<GroupRunner> runner;
  std::thread thread;
};

class GroupRunnerTest : public testing::Test {
 protected:
  GroupRunnerTest() {
    for (auto& worker : workers_) worker->Start(&scheduler_);
  }
  void TearDown() override {
    for (auto& worker : workers_) {
      worker->membership.Close();
      worker->thread.join();
      EXPECT_TRUE(worker->ended.ok()) << ToString(worker->ended);
    }
  }

  static StepPlan Plan(uint64_t epoch, uint64_t step) {
    StepPlan plan;
    plan.term = {1};
    plan.epoch = {epoch};
    plan.step = {step};
    if (step == 0) {
      Admit admit;
      admit.slot = {1};
      admit.request.sampling.temperature = 0;
      admit.prompt_tokens = 3;
      admit.ids = {7, 8, 9};
      plan.admits = {admit};
      plan.extends = {{{1}, {{1}, {2}, {3}}}};
      plan.chunks = {{{1}, 3, true}};
    } else {
      plan.chunks = {{{1}, DecodeRow{{step - 1}}, true}};
    }
    return plan;
  }

  // Makes an answer of `tokens` tokens with two plans in flight. Both ranks execute the same steps.
  std::vector<TokenId> Answer(uint64_t epoch, uint64_t tokens) {
    std::vector<TokenId> ids;
    for (uint64_t sent = 0, done = 0; done < tokens; ++done) {
      for (; sent < std::min(done + 2, tokens); ++sent) {
        for (int rank = 0; rank < kRanks; ++rank) scheduler_.Send(rank, Plan(epoch, sent));
      }
      const StepResult result = scheduler_.WaitResult(epoch, 0);
      const StepResult other = scheduler_.WaitResult(epoch, 1);
      EXPECT_EQ(result.step, StepId{done});
      EXPECT_EQ(other.step, StepId{done});
      EXPECT_EQ(result.collectives, done + 1);
      EXPECT_EQ(other.collectives, done + 1);
      EXPECT_TRUE(other.rows.empty());
      ids.push_back(result.rows.at(0).ids.at(0));
    }
    return ids;
  }

  std::vector<std::unique_ptr<Worker>> workers_ = [] {
    std::vector<std::unique_ptr<Worker>> workers;
    for (int rank = 0; rank < kRanks; ++rank) workers.push_back(std::make_unique<Worker>(rank));
    return workers;
  }();
  FakeScheduler scheduler_{{&workers_[0]->membership, &workers_[1]->membership}};
};

TEST_F(GroupRunnerTest, TwoRanksAnswerStepByStepAndAgainInTheNextEpoch) {
  scheduler_.Seat(1);
  scheduler_.WaitReady(1);
  const std::vector<TokenId> first = Answer(1, 30);
  scheduler_.Seat(2);  // A new epoch begins empty.
  scheduler_.WaitReady(2);
  EXPECT_EQ(Answer(2, 30), first);
}

TEST_F(GroupRunnerTest, ARankInACollectiveWithoutItsPeerFallsOutByTheAbortAndAnswersNothing) {
  for (uint64_t epoch = 1; epoch <= 20; ++epoch) {
    scheduler_.Seat(epoch);
    scheduler_.WaitReady(epoch);
    scheduler_.Send(static_cast<int>(epoch % 2),
                    Plan(epoch, 0));  // Only one of the ranks gets a plan.
    if (epoch % 3 != 0) {
      while (workers_[epoch % 2]->progress.phase.load() != Phase::kStepping)
        std::this_thread::yield();
    }
    scheduler_.Abort(epoch);
  }
  scheduler_.Seat(100);
  scheduler_.WaitReady(100);
  EXPECT_EQ(Answer(100, 5).size(), 5u);
  for (uint64_t epoch = 1; epoch <= 20; ++epoch) {
    EXPECT_EQ(scheduler_.results(epoch, static_cast<int>(epoch % 2)), 0u);
  }
}

TEST_F(GroupRunnerTest, AWrongPlanOfOneRankEndsTheEpochAndFreesThePeer) {
  scheduler_.Seat(1);
  scheduler_.WaitReady(1);
  scheduler_.Send(1, Plan(1, 0));  // This rank enters the collective.
  scheduler_.Send(0, Plan(1, 1));  // This rank expects step 0 first.
  EXPECT_NE(scheduler_.WaitFailed(1, 0).find("step 0 was to come"), std::string::npos);
  EXPECT_FALSE(scheduler_.WaitFailed(1, 1).empty());  // The scheduler has sent nothing.
  scheduler_.Seat(2);
  scheduler_.WaitReady(2);
  EXPECT_EQ(Answer(2, 3).size(), 3u);
}

TEST_F(GroupRunnerTest, ASeatBeyondTheLimitsIsRefusedByName) {
  EngineLimits limits = kLimits;
  limits.pool_blocks = 65;
  scheduler_.Seat(1, limits);
  EXPECT_NE(scheduler_.WaitFailed(1, 0).find("blocks 65 of 64"), std::string::npos);
  EXPECT_NE(scheduler_.WaitFailed(1, 1).find("blocks 65 of 64"), std::string::npos);
}

}  // namespace
}  // namespace fathom::worker
