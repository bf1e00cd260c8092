// The ranks of one group as threads, with a scheduler in this process: two that share a layer, two
// stages, and both. They connect through shared memory, run the same plans, leave a collective or a
// wait for another stage when the epoch ends, and take the next seat.
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
#include "worker/comm/shm_comm.h"
#include "worker/cpu/cpu_device.h"
#include "worker/engine/group_link.h"

namespace fathom::worker {
namespace {

constexpr EngineLimits kLimits{.context_tokens = 96,
                               .block_tokens = 16,
                               .pool_blocks = 64,
                               .slots = 4,
                               .step_tokens = 48,
                               .vocab = kFakeVocab};

// The messages to and from the ranks, under one lock.
class FakeScheduler {
 public:
  FakeScheduler(const GroupShape& shape, std::vector<Membership*> ranks)
      : shape_(shape), ranks_(std::move(ranks)) {}

  // Gives every rank a seat in a new epoch. `peers`: one for each rank; empty: all on one host.
  void Seat(uint64_t epoch, EngineLimits limits = kLimits, std::vector<GroupPeer> peers = {}) {
    if (peers.empty()) peers.assign(ranks_.size(), {"any", "here"});
    std::lock_guard lock(seating_);
    for (int rank = 0; rank < shape_.ranks(); ++rank) {
      GroupSeat seat;
      seat.term = {1};
      seat.epoch = {epoch};
      seat.rank = rank;
      seat.tp = shape_.tp;
      seat.pp = shape_.pp;
      seat.peers = peers;
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
    changed_.wait(lock, [&] {
      for (int rank = 0; rank < shape_.ranks(); ++rank) {
        if (!ready_.contains({epoch, rank})) return false;
      }
      return true;
    });
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

  const GroupShape shape_;
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
    for (int rank = 0; rank < seat.shape().ranks(); ++rank) {
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

// A device that connects itself, as GPUs do: here by shared memory whose name the ranks exchange.
class SelfConnecting final : public Device {
 public:
  SelfConnecting(CpuDevice* device, EpochComm* comm) : device_(*device), comm_(*comm) {}

  // The next Join fails.
  void FailNextJoin() { fail_ = true; }

  bool connects_itself() const override { return true; }
  absl::Status Join(GroupLink& group) override {
    FATHOM_CHECK(shared_ == nullptr);
    const GroupSeat& seat = group.seat();
    std::string mine = "rank " + std::to_string(seat.rank);
    if (seat.rank == 0) {
      FATHOM_ASSIGN_OR_RETURN(shared_, ShmComm::Create(seat.tp));
      mine = shared_->name();
    }
    FATHOM_ASSIGN_OR_RETURN(const std::vector<std::string> all, group.Exchange(mine));
    for (int rank = 1; rank < seat.tp; ++rank) {
      EXPECT_EQ(all.at(static_cast<size_t>(rank)), "rank " + std::to_string(rank));
    }
    if (seat.rank != 0) {
      FATHOM_ASSIGN_OR_RETURN(shared_, ShmComm::Open(all[0], seat.rank, seat.tp));
    }
    if (fail_.exchange(false)) return FailedPrecondition("this rank cannot map the others");
    FATHOM_RETURN_IF_ERROR(group.Exchange("open").status());
    group.OnAbort([this] { shared_->Abort(); });
    comm_.SetTarget(shared_.get());
    return absl::OkStatus();
  }
  void Leave() override {
    comm_.SetTarget(nullptr);
    shared_ = nullptr;
  }

  int steps_in_flight() const override { return device_.steps_in_flight(); }
  EpochComm* comm() override { return &comm_; }
  absl::Status Submit(const StepBatch& batch) override { return device_.Submit(batch); }
  StepOutputs Collect() override { return device_.Collect(); }
  std::string NonFiniteDetail(int32_t, int32_t) const override { return {}; }
  void Drain() override { device_.Drain(); }

 private:
  CpuDevice& device_;
  EpochComm& comm_;
  std::unique_ptr<ShmComm> shared_;
  std::atomic<bool> fail_{false};
};

// The ranks of a group, and how their devices are connected.
struct Layout {
  GroupShape shape;
  bool connect_themselves = false;
};

// One worker process, as a thread.
struct Worker {
  Worker(const Layout& layout, int rank_index)
      : shape(layout.shape), self_connects(layout.connect_themselves), rank(rank_index) {}
  void Start(FakeScheduler* scheduler) {
    control = std::make_unique<FakeControl>(scheduler);
    runner = std::make_unique<GroupRunner>(
        GroupRunnerOptions{shape, kLimits, {1000, 1000}}, &membership, control.get(),
        [this](int seat_rank) -> absl::StatusOr<Device*> {
          FATHOM_CHECK(seat_rank == rank);
          return self_connects ? static_cast<Device*>(&self_connecting) : &device;
        },
        &clock, &progress, &stop, nullptr);
    thread = std::thread([this] { ended = runner->Run(); });
  }

  const GroupShape shape;
  const bool self_connects;
  const int rank;
  RealClock clock;
  Progress progress;
  Membership membership;
  EpochComm comm{shape.TpRankOf(rank), shape.tp, &clock, &progress, shape.StageOf(rank), shape.pp};
  const std::unique_ptr<KvCache> kv =
      KvCache::Allocate(FakeDecoder::Shape(kLimits.block_tokens, kLimits.pool_blocks)).value();
  FakeDecoder decoder{kv.get(), &comm, 48, {comm.is_first_stage(), comm.is_last_stage()}};
  CpuDevice device{CpuDeviceParts{&decoder, kv.get(), &comm, &clock, kLimits, 48}};
  SelfConnecting self_connecting{&device, &comm};
  std::atomic<bool> stop{false};
  absl::Status ended = Internal("did not end");
  std::unique_ptr<FakeControl> control;
  std::unique_ptr<GroupRunner> runner;
  std::thread thread;
};

class GroupRunnerTest : public testing::TestWithParam<Layout> {
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

  // Makes an answer of `tokens` tokens with two plans in flight. All ranks execute the same steps.
  std::vector<TokenId> Answer(uint64_t epoch, uint64_t tokens) {
    std::vector<TokenId> ids;
    for (uint64_t sent = 0, done = 0; done < tokens; ++done) {
      for (; sent < std::min(done + 2, tokens); ++sent) {
        for (int rank = 0; rank < shape_.ranks(); ++rank) scheduler_.Send(rank, Plan(epoch, sent));
      }
      for (int rank = 0; rank < shape_.ranks(); ++rank) {
        const StepResult result = scheduler_.WaitResult(epoch, rank);
        EXPECT_EQ(result.step, StepId{done});
        if (shape_.pp == 1) {
          EXPECT_EQ(result.collectives, done + 1);
        }
        EXPECT_EQ(result.rows.empty(), rank != shape_.answering_rank());
        if (!result.rows.empty()) ids.push_back(result.rows[0].ids.at(0));
      }
    }
    return ids;
  }

  const GroupShape shape_ = GetParam().shape;
  std::vector<std::unique_ptr<Worker>> workers_ = [this] {
    std::vector<std::unique_ptr<Worker>> workers;
    for (int rank = 0; rank < shape_.ranks(); ++rank) {
      workers.push_back(std::make_unique<Worker>(GetParam(), rank));
    }
    return workers;
  }();
  FakeScheduler scheduler_{shape_, [this] {
                             std::vector<Membership*> memberships;
                             for (auto& worker : workers_) {
                               memberships.push_back(&worker->membership);
                             }
                             return memberships;
                           }()};
};
std::string NameOf(const testing::TestParamInfo<Layout>& info) {
  const auto& [shape, themselves] = info.param;
  return "tp" + std::to_string(shape.tp) + "_pp" + std::to_string(shape.pp) +
         (themselves ? "_themselves" : "");
}
INSTANTIATE_TEST_SUITE_P(Layouts, GroupRunnerTest,
                         testing::Values(Layout{{2, 1}}, Layout{{1, 2}}, Layout{{1, 4}},
                                         Layout{{2, 2}}, Layout{{2, 1}, true},
                                         Layout{{4, 1}, true}),
                         NameOf);

class SelfConnectingTest : public GroupRunnerTest {};
INSTANTIATE_TEST_SUITE_P(Layouts, SelfConnectingTest,
                         testing::Values(Layout{{2, 1}, true}, Layout{{4, 1}, true}), NameOf);

TEST_P(GroupRunnerTest, AllRanksAnswerStepByStepAndAgainInTheNextEpoch) {
  scheduler_.Seat(1);
  scheduler_.WaitReady(1);
  const std::vector<TokenId> first = Answer(1, 30);
  scheduler_.Seat(2);  // A new epoch begins empty.
  scheduler_.WaitReady(2);
  EXPECT_EQ(Answer(2, 30), first);
}

TEST_P(GroupRunnerTest, ARankThatWaitsForAnotherFallsOutByTheAbortAndAnswersNothing) {
  const auto ranks = static_cast<uint64_t>(shape_.ranks());
  // Only one rank gets plans. The first stage can compute a step without the other stages; then it
  // waits for the sample.
  const auto alone = [&](uint64_t epoch) { return static_cast<int>(epoch % ranks); };
  for (uint64_t epoch = 1; epoch <= 20; ++epoch) {
    scheduler_.Seat(epoch);
    scheduler_.WaitReady(epoch);
    for (const uint64_t step : {0, 1}) scheduler_.Send(alone(epoch), Plan(epoch, step));
    if (epoch % 3 != 0) {
      const Progress& progress = workers_[static_cast<size_t>(alone(epoch))]->progress;
      while (progress.phase.load() != Phase::kStepping) std::this_thread::yield();
    }
    scheduler_.Abort(epoch);
  }
  scheduler_.Seat(100);
  scheduler_.WaitReady(100);
  EXPECT_EQ(Answer(100, 5).size(), 5u);
  for (uint64_t epoch = 1; epoch <= 20; ++epoch) {
    const bool first_alone = shape_.tp == 1 && alone(epoch) == 0;
    EXPECT_LE(scheduler_.results(epoch, alone(epoch)), first_alone ? 1u : 0u);
  }
}

TEST_P(GroupRunnerTest, AWrongPlanOfOneRankEndsTheEpochAndFreesTheOthers) {
  scheduler_.Seat(1);
  scheduler_.WaitReady(1);
  for (int rank = 1; rank < shape_.ranks(); ++rank) scheduler_.Send(rank, Plan(1, 0));
  scheduler_.Send(0, Plan(1, 1));  // This rank expects step 0 first. The others wait for it.
  EXPECT_NE(scheduler_.WaitFailed(1, 0).find("step 0 was to come"), std::string::npos);
  for (int rank = 1; rank < shape_.ranks(); ++rank) {
    EXPECT_FALSE(scheduler_.WaitFailed(1, rank).empty());  // The scheduler has sent nothing.
  }
  scheduler_.Seat(2);
  scheduler_.WaitReady(2);
  EXPECT_EQ(Answer(2, 3).size(), 3u);
}

TEST_P(SelfConnectingTest, ADeviceThatCannotConnectEndsTheEpochWithItsReason) {
  workers_.back()->self_connecting.FailNextJoin();
  scheduler_.Seat(1);
  EXPECT_NE(scheduler_.WaitFailed(1, shape_.ranks() - 1).find("cannot map the others"),
            std::string::npos);
  scheduler_.Abort(1);  // What the leader does; the other ranks wait for the one that failed.
  scheduler_.Seat(2);
  scheduler_.WaitReady(2);
  EXPECT_EQ(Answer(2, 3).size(), 3u);
}

// Containers of one machine may have a /dev/shm each.
TEST_P(GroupRunnerTest, RanksThatShareNoMemoryAreRefusedByTheirHosts) {
  std::vector<GroupPeer> peers(static_cast<size_t>(shape_.ranks()),
                               {"any", "here", "machine", "1:1"});
  peers.back().host = "there";
  uint64_t epoch = 1;
  if (workers_.back()->self_connects) {  // It has ways between hosts.
    peers.back().machine = "another";
    scheduler_.Seat(epoch, kLimits, peers);
    scheduler_.WaitReady(epoch);
    return;
  }
  scheduler_.Seat(epoch, kLimits, peers);  // Two names of one host.
  scheduler_.WaitReady(epoch);
  for (const bool machine : {true, false}) {
    std::vector<GroupPeer> apart = peers;
    (machine ? apart.back().machine : apart.back().shared_memory) = "another";
    scheduler_.Seat(++epoch, kLimits, apart);
    for (int rank = 0; rank < shape_.ranks(); ++rank) {
      const std::string why = scheduler_.WaitFailed(epoch, rank);
      EXPECT_NE(why.find("rank 0 is on here"), std::string::npos) << why;
      EXPECT_NE(why.find(fmt::format("rank {} on there", shape_.ranks() - 1)), std::string::npos)
          << why;
      EXPECT_NE(why.find("start them on one host"), std::string::npos) << why;
    }
  }
}

TEST_P(GroupRunnerTest, ASeatBeyondTheLimitsIsRefusedByName) {
  EngineLimits limits = kLimits;
  limits.pool_blocks = 65;
  scheduler_.Seat(1, limits);
  for (int rank = 0; rank < shape_.ranks(); ++rank) {
    EXPECT_NE(scheduler_.WaitFailed(1, rank).find("blocks 65 of 64"), std::string::npos);
  }
}

}  // namespace
}  // namespace fathom::worker
