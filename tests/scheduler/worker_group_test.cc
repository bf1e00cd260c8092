// A group comes up only if all its ranks are registered, ready and listening. The loss of one rank
// ends the epoch for all ranks.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/scheduler/worker_group_world.h"

namespace fathom::scheduler {
namespace {

TEST_F(WorkerGroupTest, ComesUpWhenEveryRankIsReadyAndListens) {
  Join(1, HelloOf("b", 1));
  EXPECT_TRUE(out_.messages.empty());
  Hello smaller = HelloOf("a", 0);
  smaller.worker->limits.pool_blocks = 51;
  smaller.worker->limits.slots = 4;
  Join(0, smaller);
  const std::optional<GroupSeat> first = SeatOf(0), second = SeatOf(1);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->rank, 0);  // By preference, not by order of arrival.
  EXPECT_EQ(second->rank, 1);
  EXPECT_EQ(first->term, kTerm);
  EXPECT_EQ(first->epoch, second->epoch);
  EXPECT_EQ(first->blocks, 51);
  EXPECT_EQ(second->limits.slots, 4);
  ASSERT_EQ(first->peers.size(), 2u);
  EXPECT_EQ(first->peers[0].process_id, "a");
  epoch_ = first->epoch;

  groups_.OnReady(Control(0), {kTerm, epoch_, 0}, now_, &out_);
  groups_.OnReady(Control(1), {kTerm, epoch_, 1}, now_, &out_);
  groups_.OnStepsHello(Steps(1), {kTerm, epoch_, 1, "b"}, now_, &out_);
  EXPECT_TRUE(out_.up.empty());
  groups_.OnStepsHello(Steps(0), {kTerm, epoch_, 0, "a"}, now_, &out_);
  ASSERT_EQ(out_.up.size(), 1u);
  EXPECT_EQ(out_.up[0].limits.blocks, 51);
  EXPECT_EQ(out_.up[0].limits.slots, 4);
  EXPECT_EQ(out_.up[0].limits.plans_in_flight, 2);
  EXPECT_EQ(out_.up[0].fingerprint, "print");
  EXPECT_EQ(groups_.facts().groups, 1);
  EXPECT_EQ(groups_.facts().pool_blocks, 50);
  EXPECT_EQ(groups_.facts().device_kind, "cuda-sm90");
  EXPECT_EQ(groups_.facts().dtype, "bfloat16");
}

TEST_F(WorkerGroupTest, AGroupSpeaksTheVersionThatEachOfItsWorkersKnows) {
  Join(0, HelloOf("a", 0));
  Hello earlier = HelloOf("b", 1);
  earlier.protocol_max = kProtocol2 - 1;
  Join(1, earlier);
  Ready();
  ASSERT_EQ(out_.up.size(), 1u);
  EXPECT_EQ(out_.up[0].limits.protocol, kProtocol2 - 1);
}

TEST_F(WorkerGroupTest, ANewerWorkerIsSpokenToInThisVersion) {
  for (int i : {0, 1}) {
    Hello newer = HelloOf(i == 0 ? "a" : "b", i);
    newer.protocol_max = kProtocolMax + 1;
    Join(i, newer);
  }
  Ready();
  ASSERT_EQ(out_.up.size(), 1u);
  EXPECT_EQ(out_.up[0].limits.protocol, kProtocolMax);
}

TEST_F(WorkerGroupTest, RefusesFactsThatCannotBe) {
  const std::pair<const char*, std::function<void(Hello&)>> cases[] = {
      {"Hello.worker", [](Hello& h) { h.worker.reset(); }},
      {"tp", [](Hello& h) { h.worker->tp = 0; }},
      {"pp", [](Hello& h) { h.worker->pp = -1; }},
      {"ranks", [](Hello& h) { h.worker->tp = 1 << 20; }},
      {"pool_blocks", [](Hello& h) { h.worker->limits.pool_blocks = 1; }},
      {"block_tokens", [](Hello& h) { h.worker->limits.block_tokens = 0; }},
      {"slots", [](Hello& h) { h.worker->limits.slots = 0; }},
      {"vocab", [](Hello& h) { h.worker->limits.vocab = 0; }},
  };
  for (const auto& [what, change] : cases) {
    Hello hello = HelloOf("a");
    change(hello);
    out_ = {};
    Join(0, hello);
    ASSERT_EQ(out_.closes.size(), 1u) << what;
    EXPECT_NE(Message(out_.closes[0].second).find(what), std::string_view::npos)
        << Message(out_.closes[0].second);
    EXPECT_EQ(groups_.Stats().workers, 0);
  }
}

TEST_F(WorkerGroupTest, RefusesAnotherModelWhileWorkersServeOne) {
  Join(0, HelloOf("a"));
  Hello other = HelloOf("b");
  other.worker->weights_digest = "others";
  Join(1, other);
  ASSERT_EQ(out_.closes.size(), 1u);
  EXPECT_EQ(out_.closes[0].first, Control(1));
  EXPECT_EQ(out_.closes[0].second.code(), absl::StatusCode::kFailedPrecondition);
  groups_.OnControlDown(Control(0), "left", now_, &out_);
  out_ = {};
  Join(1, other);  // No other worker is registered.
  EXPECT_TRUE(out_.closes.empty());
  EXPECT_EQ(groups_.Stats().workers, 1);
}

TEST_F(WorkerGroupTest, MixesNeitherHostsNorShapesNorFingerprints) {
  const std::function<void(Hello&)> cases[] = {
      [](Hello& h) { h.worker->host = "other"; },
      [](Hello& h) { h.worker->tp = 4; },
      [](Hello& h) { h.worker->fingerprint = "other"; },
  };
  Join(0, HelloOf("a"));
  int i = 1;
  for (const auto& change : cases) {
    Hello hello = HelloOf("p" + std::to_string(i));
    change(hello);
    Join(i++, hello);
    EXPECT_TRUE(out_.messages.empty());
  }
  Join(i, HelloOf("b"));
  EXPECT_TRUE(SeatOf(0) && SeatOf(i));
}

TEST_F(WorkerGroupTest, PlansGoToAllRanksAndOnlyRankZeroAnswersTheCore) {
  BringUp();
  EXPECT_EQ(Plan(0), (std::vector{Steps(0), Steps(1)}));
  EXPECT_EQ(Plan(1).size(), 2u);
  EXPECT_EQ(groups_.StepsInFlight(), 2);
  now_ += 700;
  EXPECT_FALSE(Result(1, 0));
  EXPECT_EQ(groups_.StepsInFlight(), 2);
  auto done = Result(0, 0);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->group, group_);
  EXPECT_EQ(groups_.last_step_us(), 700);
  EXPECT_EQ(groups_.StepsInFlight(), 1);
}

TEST_F(WorkerGroupTest, DropsAndCountsWhatIsStale) {
  BringUp();
  Plan(0);
  StepResult stale{TermId{4}, epoch_, StepId{0}, 0};
  EXPECT_FALSE(groups_.OnResult(Steps(0), stale, now_, &out_));
  stale = {kTerm, EpochId{epoch_.value + 1}, StepId{0}, 0};
  EXPECT_FALSE(groups_.OnResult(Steps(0), stale, now_, &out_));
  stale = {kTerm, epoch_, StepId{0}, 1};
  EXPECT_FALSE(groups_.OnResult(Steps(0), stale, now_, &out_));
  EXPECT_FALSE(groups_.OnResult(PeerId{77}, {kTerm, epoch_, StepId{0}, 0}, now_, &out_));
  groups_.OnFailed(Control(0), {kTerm, EpochId{99}, 0, "late"}, now_, &out_);
  EXPECT_EQ(groups_.Stats().stale_epoch_rejected_total, 5u);
  EXPECT_TRUE(out_.lost.empty());
  EXPECT_TRUE(Result(0, 0));  // The epoch goes on.
  EXPECT_TRUE(groups_.OnPlan(group_, StepPlan{kTerm, EpochId{99}, StepId{0}}, now_).empty());
}

TEST_F(WorkerGroupTest, AStepsStreamMustNameALivingSeat) {
  Join(0, HelloOf("a", 0));
  Join(1, HelloOf("b", 1));
  const EpochId epoch = SeatOf(0)->epoch;
  const StepsHello cases[] = {{TermId{4}, epoch, 0, "a"},
                              {kTerm, EpochId{epoch.value + 1}, 0, "a"},
                              {kTerm, epoch, 2, "a"},
                              {kTerm, epoch, -1, "a"},
                              {kTerm, epoch, 1, "a"}};
  for (const StepsHello& hello : cases) {
    out_ = {};
    groups_.OnStepsHello(PeerId{50}, hello, now_, &out_);
    ASSERT_EQ(out_.closes.size(), 1u);
    EXPECT_EQ(out_.closes[0].second.code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_EQ(groups_.Stats().stale_epoch_rejected_total, 5u);
}

TEST_F(WorkerGroupTest, ExchangesGoToTheOtherRanksOfTheEpoch) {
  Join(0, HelloOf("a", 0));
  Join(1, HelloOf("b", 1));
  const EpochId epoch = SeatOf(0)->epoch;
  out_ = {};
  groups_.OnExchange(Control(0), {epoch, 3, 0, "name"}, &out_);
  ASSERT_EQ(out_.messages.size(), 1u);
  EXPECT_EQ(out_.messages[0].first, Control(1));
  EXPECT_EQ(std::get<GroupExchange>(out_.messages[0].second).bytes, "name");
  groups_.OnExchange(Control(0), {epoch, 3, 1, "forged"}, &out_);
  groups_.OnExchange(Control(0), {EpochId{77}, 3, 0, "old"}, &out_);
  EXPECT_EQ(out_.messages.size(), 1u);
  groups_.OnExchange(Control(0), {epoch, 3, 0, std::string(2 << 20, 'x')}, &out_);
  EXPECT_EQ(out_.closes.size(), 1u);
}

TEST_F(WorkerGroupTest, AWorkerThatLeavesDrainsItsGroupAndNothingIsLost) {
  BringUp();
  const EpochId old = epoch_;
  Beat(1, Phase::kDraining);
  Beat(1, Phase::kDraining);
  Beat(0, Phase::kDraining);
  ASSERT_EQ(out_.drains.size(), 1u);
  EXPECT_EQ(out_.drains[0].group, group_);
  EXPECT_EQ(out_.drains[0].epoch, old);
  Beat(0);
  // It works on until the core has no more for it.
  EXPECT_EQ(Plan(0).size(), 2u);
  EXPECT_TRUE(Result(0, 0));
  EXPECT_FALSE(Result(1, 0));
  groups_.OnDrained({group_, EpochId{old.value + 1}}, now_, &out_);  // Of another epoch.
  EXPECT_TRUE(out_.lost.empty());
  groups_.OnDrained({group_, old}, now_, &out_);
  ASSERT_EQ(out_.lost.size(), 1u);
  EXPECT_EQ(out_.lost[0].epoch, old);
  EXPECT_EQ(AbortOf(0), "it is drained");
  EXPECT_EQ(AbortOf(1), "it is drained");
  EXPECT_EQ(groups_.Stats().groups_lost_total, 0u);
  EXPECT_EQ(groups_.Stats().last_loss, "");
  // The other rank waits for a new partner, which the leaving one is not.
  out_ = {};
  Beat(1, Phase::kDraining);
  Pass(1'000'000, {0});
  EXPECT_FALSE(SeatOf(0));
  Join(2, HelloOf("c", 1));
  ASSERT_TRUE(SeatOf(0));
  EXPECT_TRUE(SeatOf(2));
  EXPECT_FALSE(SeatOf(1));
}

TEST_F(WorkerGroupTest, AGroupWhoseWorkerLeavesBeforeItIsUpDrainsOnceItIs) {
  Join(0, HelloOf("a", 0));
  Join(1, HelloOf("b", 1));
  Beat(1, Phase::kDraining);
  EXPECT_TRUE(out_.drains.empty());
  Ready();
  ASSERT_EQ(out_.up.size(), 1u);
  EXPECT_EQ(out_.drains.size(), 1u);
}

// For each way to lose a rank: the epoch ends, the other ranks get an Abort, and when the lost rank
// is back there is a new group in an epoch that was never used.
TEST_F(WorkerGroupTest, AnyLossEndsTheEpochAndTheSurvivorSitsInANewOne) {
  struct Case {
    const char* why;
    std::function<void()> lose;
  };
  const Case cases[] = {
      {"control stream ended", [&] { groups_.OnControlDown(Control(1), "reset", now_, &out_); }},
      {"steps stream ended", [&] { groups_.OnStepsDown(Steps(1), "reset", now_, &out_); }},
      {"it says: no memory",
       [&] {
         groups_.OnFailed(Control(1), {kTerm, epoch_, 1, "no memory"}, now_, &out_);
       }},
      {"answered step 3", [&] { Result(1, 3); }},
      {"no heartbeat", [&] { Pass(options_.heartbeat_silence_us + 200'000, {0}); }},
      {"impossible",
       [&] {
         groups_.OnAbort({group_, epoch_, "impossible"}, now_, &out_);
       }},
  };
  BringUp();
  for (const Case& loss : cases) {
    SCOPED_TRACE(loss.why);
    const EpochId old = epoch_;
    Plan(0);
    loss.lose();
    ExpectLost(loss.why);
    EXPECT_TRUE(AbortOf(0));
    EXPECT_EQ(groups_.StepsInFlight(), 0);
    EXPECT_TRUE(groups_.OnPlan(group_, StepPlan{kTerm, old, StepId{1}}, now_).empty());
    out_.lost.clear();
    if (groups_.Stats().workers == 1) Join(1, HelloOf("b", 1));
    // None of the groups did a step.
    Pass((options_.retry_us << std::size(cases)) + 200'000, {0, 1});
    ASSERT_TRUE(SeatOf(0));
    EXPECT_GT(SeatOf(0)->epoch, old);
    out_.up.clear();
    Ready();
    ASSERT_EQ(out_.up.size(), 1u);
    group_ = out_.up[0].group;
    out_ = {};
  }
  EXPECT_EQ(groups_.Stats().groups_lost_total, std::size(cases));
}

// For any cause of the losses: groups that never work are formed more and more slowly, until one
// works. Each loss is reported with its reason and the number of consecutive losses for this
// reason.
TEST_F(WorkerGroupTest, GroupsThatNeverWorkAreMadeMoreAndMoreSlowly) {
  const std::function<void(int)> ways[] = {
      [&](int i) {
        groups_.OnAbort({group_, epoch_, fmt::format("refused {}", i)}, now_, &out_);
      },
      [&](int i) {
        groups_.OnFailed(Control(1), {kTerm, epoch_, 1, fmt::format("no memory: {}", i)}, now_,
                         &out_);
      },
      [&](int) { groups_.OnStepsDown(Steps(0), "reset", now_, &out_); },
  };
  BringUp();
  for (const auto& lose : ways) {
    std::vector<int64_t> waits;
    for (int i = 0; i < 12; ++i) {
      out_ = {};
      lose(i);
      EXPECT_EQ(groups_.Stats().losses_alike, i + 1) << groups_.Stats().last_loss;
      const TimeUs lost_us = now_;
      while (!SeatOf(0)) Pass(options_.tick_us, {0, 1});
      waits.push_back(now_ - lost_us);
      Ready();
      group_ = out_.up.back().group;
    }
    // The first new group may form at once, because survivors of a single loss do not wait.
    for (int i = 1; i < 12; ++i) {
      EXPECT_EQ(waits[i], std::min(options_.retry_us << i, options_.retry_max_us)) << i;
    }
    out_ = {};
    Plan(0);
    Result(0, 0);
    Result(1, 0);
    groups_.OnAbort({group_, epoch_, "after work"}, now_, &out_);
    EXPECT_EQ(groups_.Stats().losses_alike, 0);
    EXPECT_EQ(groups_.Stats().last_loss, "no rank in particular: after work");
    ASSERT_TRUE(SeatOf(0)) << "a group that worked is made again at once";
    Ready();
    group_ = out_.up.back().group;
  }
}

TEST_F(WorkerGroupTest, AGroupThatWasUpForLongHasWorkedAndANewTermIsNobodysFailure) {
  BringUp();
  for (int i = 0; i < 8; ++i) {
    out_ = {};
    if (i % 2 == 0) {
      groups_.SetTerm(TermId{kTerm.value + 1 + static_cast<uint64_t>(i)}, now_, &out_);
      groups_.SetTerm(kTerm, now_, &out_);
    } else {
      Pass(options_.healthy_us, {0, 1});
      groups_.OnAbort({group_, epoch_, "idle for long"}, now_, &out_);
    }
    EXPECT_EQ(groups_.Stats().losses_alike, 0);
    ASSERT_TRUE(SeatOf(0)) << "at once";
    Ready();
    group_ = out_.up.back().group;
  }
}

TEST_F(WorkerGroupTest, AStandingProgressWordInsideAStepIsALoss) {
  BringUp();
  Pass(60'000'000, {0, 1});  // Idle workers make no progress.
  EXPECT_TRUE(out_.lost.empty());
  Plan(0);
  Pass(options_.stall_us - 1'000'000, {0, 1}, Phase::kStepping);
  ++progress_;  // Progress of the engine.
  Pass(options_.stall_us - 1'000'000, {0, 1}, Phase::kStepping);
  EXPECT_TRUE(out_.lost.empty());
  Result(0, 0);
  Pass(2'000'000, {0, 1}, Phase::kStepping);
  ExpectLost("rank 1");
}

TEST_F(WorkerGroupTest, ALateTickAccusesNobody) {
  BringUp();
  Plan(0);
  Pass(1'000'000, {0, 1});
  now_ += 30'000'000;  // This process did not run.
  groups_.OnTick(now_, &out_);
  Pass(500'000, {});
  EXPECT_TRUE(out_.lost.empty());
  Pass(3'000'000, {0});
  ExpectLost("no heartbeat");
}

TEST_F(WorkerGroupTest, LoadingAndConnectingHaveLimitsOfTheirOwn) {
  Join(0, HelloOf("a", 0));
  Join(1, HelloOf("b", 1));
  // Rank 1 loads for minutes; rank 0 waits for it and does not count as lost.
  for (int64_t passed = 0; passed < options_.loading_us / 2; passed += options_.tick_us) {
    now_ += options_.tick_us;
    Beat(0, Phase::kConnecting);
    Beat(1, Phase::kLoading);
    groups_.OnTick(now_, &out_);
  }
  EXPECT_EQ(groups_.Stats().groups_lost_total, 0u);
  Pass(options_.connecting_us - 1'000'000, {0, 1}, Phase::kConnecting);
  EXPECT_EQ(groups_.Stats().groups_lost_total, 0u);
  out_ = {};
  Pass(2'000'000, {0, 1}, Phase::kConnecting);
  EXPECT_EQ(groups_.Stats().groups_lost_total, 1u);
  EXPECT_TRUE(out_.lost.empty());  // It was never up.
  const auto lost = std::find_if(out_.log.begin(), out_.log.end(), [](const std::string& line) {
    return line.find("not ready after") != std::string::npos;
  });
  EXPECT_NE(lost, out_.log.end());
}

TEST_F(WorkerGroupTest, AProcessThatComesBackReplacesItsOlderStream) {
  BringUp();
  Join(2, HelloOf("b", 1));
  ExpectLost("replaced");
  EXPECT_EQ(out_.closes.back().first == Control(1) || out_.closes.front().first == Control(1),
            true);
  EXPECT_TRUE(SeatOf(2));
  EXPECT_EQ(groups_.Stats().workers, 2);
}

TEST_F(WorkerGroupTest, ANewTermEndsEveryEpoch) {
  BringUp();
  groups_.SetTerm(TermId{9}, now_, &out_);
  ExpectLost("term 9");
  ASSERT_TRUE(SeatOf(0));
  EXPECT_EQ(SeatOf(0)->term, TermId{9});
  EXPECT_EQ(SeatOf(0)->epoch, EpochId{1});
}

}  // namespace
}  // namespace fathom::scheduler
