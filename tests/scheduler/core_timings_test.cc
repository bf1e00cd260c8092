// What the timings of a sequence say about its waits, its stays and its chunks. The test moves the
// time, so every duration is exact.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/scheduler/core_harness.h"
#include "tests/sim/timings_check.h"

namespace fathom::scheduler {
namespace {

int64_t Behind(const WaitTimes& times, WaitLimit limit) {
  return times[static_cast<size_t>(limit)];
}

class CoreTimings : public testing::Test {
 protected:
  void Start(const GroupLimits& limits) {
    up_ = harness_.UpEvent(limits);
    runner_ = std::make_unique<Runner>(harness_, up_);
    runner_->Take(harness_.Step(up_));
  }
  void Submit(uint64_t attempt, int32_t prompt, int32_t max_tokens) {
    runner_->Follow(attempt);
    runner_->Take(
        harness_.Submit(MakeRecord("r" + std::to_string(attempt), prompt, max_tokens), attempt));
  }
  // One step, which takes `us`.
  bool RunOne(int64_t us) {
    harness_.now += us;
    return runner_->RunOne();
  }
  void RunAll(int64_t step_us) {
    while (RunOne(step_us)) {
    }
  }
  const RequestTimings& Timings(uint64_t attempt) {
    const auto& timings = runner_->ledger(attempt).timings;
    EXPECT_TRUE(timings.has_value());
    EXPECT_EQ(sim::WrongTimings(*timings), "");
    EXPECT_EQ(timings->phase, RequestPhase::kEnded);
    return *timings;
  }

  CoreHarness harness_;
  GroupUp up_;
  std::unique_ptr<Runner> runner_;
};

TEST_F(CoreTimings, ARequestBehindAFullBatchWaitedForASlot) {
  GroupLimits limits = CoreHarness::Limits();
  limits.slots = 1;
  Start(limits);
  Submit(1, 3, 10);
  const TimeUs second_us = harness_.now;
  Submit(2, 3, 2);
  EXPECT_EQ(harness_.core.Stats().waiting_by_limit[static_cast<size_t>(WaitLimit::kSlots)], 1);
  RunAll(100);
  EXPECT_EQ(Timings(1).queue_us, 0);
  const RequestTimings& second = Timings(2);
  EXPECT_GT(second.queue_us, 500);
  EXPECT_EQ(Behind(second.queue_behind_us, WaitLimit::kSlots), second.queue_us);
  EXPECT_EQ(second.suspensions, 0);
  ASSERT_EQ(second.stays.size(), 1u);
  EXPECT_EQ(second.stays[0].at_us, second.queue_us);
  EXPECT_EQ(second.stays[0].end, StayEnd::kFinished);
  EXPECT_EQ(second.stays[0].epoch, EpochId{1});
  EXPECT_LE(second.WholeUs(), harness_.now - second_us);
}

TEST_F(CoreTimings, ARequestWithoutRoomWaitedForBlocks) {
  GroupLimits limits = CoreHarness::Limits();
  limits.blocks = 6;  // 20 tokens.
  Start(limits);
  Submit(1, 12, 5);
  Submit(2, 12, 2);
  EXPECT_EQ(harness_.core.Stats().waiting_by_limit[static_cast<size_t>(WaitLimit::kBlocks)], 1);
  RunAll(100);
  const RequestTimings& second = Timings(2);
  EXPECT_GT(second.queue_us, 0);
  EXPECT_EQ(Behind(second.queue_behind_us, WaitLimit::kBlocks), second.queue_us);
}

TEST_F(CoreTimings, ARequestWithoutAGroupWaitedForIt) {
  Start(CoreHarness::Limits());
  harness_.Step(GroupLost{kGroup, EpochId{1}});
  Submit(1, 3, 2);
  harness_.Tick(4321);
  up_ = harness_.UpEvent(CoreHarness::Limits(), 2);
  Runner again(harness_, up_);
  again.Follow(1);
  again.Take(harness_.Step(up_));
  again.RunAll();
  ASSERT_TRUE(again.ledger(1).timings.has_value());
  const RequestTimings& timings = *again.ledger(1).timings;
  EXPECT_EQ(Behind(timings.queue_behind_us, WaitLimit::kNoGroup), 4321);
  EXPECT_EQ(timings.queue_us, 4321);
}

TEST_F(CoreTimings, APreemptedRequestSaysSo) {
  GroupLimits limits = CoreHarness::Limits();
  limits.blocks = 9;  // 32 tokens.
  Start(limits);
  for (uint64_t i = 1; i <= 3; ++i) {
    harness_.now += 10;
    Submit(i, 8, 20);
  }
  RunAll(100);
  EXPECT_EQ(Timings(1).preemptions, 0);
  const RequestTimings& last = Timings(3);
  EXPECT_GT(last.preemptions, 0);
  EXPECT_EQ(last.preemptions, last.suspensions);
  EXPECT_EQ(last.stays_total, last.preemptions + 1);
  EXPECT_EQ(last.stays[0].end, StayEnd::kPreempted);
  EXPECT_EQ(last.stays.back().end, StayEnd::kFinished);
  EXPECT_GT(last.replay_us, 0);
  EXPECT_EQ(SumUs(last.suspended_behind_us), last.suspended_us);
  EXPECT_GT(Behind(last.suspended_behind_us, WaitLimit::kBlocks), 0);
  ASSERT_FALSE(last.gaps.empty());
  EXPECT_GE(last.gaps[0].us, last.suspended_us / last.preemptions);
}

TEST_F(CoreTimings, ChunksOfAPromptHaveTheirTimes) {
  GroupLimits limits = CoreHarness::Limits();
  limits.plans_in_flight = 1;
  Start(limits);
  Submit(1, 40, 2);  // 16 rows in a step.
  RunAll(100);
  const RequestTimings& timings = Timings(1);
  EXPECT_EQ(timings.chunks,
            (std::vector<PromptChunk>{{0, 100, 16, 1}, {100, 100, 16, 1}, {200, 100, 8, 1}}));
  EXPECT_EQ(timings.prefill_us, 300);
  EXPECT_EQ(timings.decode_us, 100);
  EXPECT_EQ(timings.first_token_us, 300);
  EXPECT_EQ(timings.last_token_us, 400);
}

TEST_F(CoreTimings, ALostGroupAndAnAbsentClientAreSuspensionsWithTheirCause) {
  Start(CoreHarness::Limits());
  Submit(1, 3, 10);
  RunOne(100);
  RunOne(100);
  harness_.now += 50;
  harness_.Step(Routed<Suspend>{kRouter, {AttemptId{1}, {"", "r1"}}});
  RunAll(0);  // The plans in flight.
  harness_.Tick(1000);
  runner_->Follow(2);
  runner_->Take(harness_.Step(CoreHarness::KeyOnly({"", "r1"}, 2)));
  harness_.Step(GroupLost{kGroup, EpochId{1}});
  harness_.Tick(500);
  up_ = harness_.UpEvent(CoreHarness::Limits(), 2);
  Runner again(harness_, up_);
  again.Follow(2, static_cast<int32_t>(runner_->ledger(2).ids.size()));
  again.Take(harness_.Step(up_));
  again.RunAll();
  ASSERT_TRUE(again.ledger(2).timings.has_value());
  const RequestTimings& timings = *again.ledger(2).timings;
  EXPECT_EQ(sim::WrongTimings(timings), "");
  ASSERT_EQ(timings.stays.size(), 3u);
  EXPECT_EQ(timings.stays[0].end, StayEnd::kClientLeft);
  EXPECT_EQ(timings.stays[1].end, StayEnd::kGroupLost);
  EXPECT_EQ(timings.stays[2].epoch, EpochId{2});
  EXPECT_EQ(timings.suspensions, 2);
  EXPECT_EQ(timings.preemptions, 0);
  EXPECT_EQ(timings.suspended_us, 1500);
  EXPECT_EQ(Behind(timings.suspended_behind_us, WaitLimit::kNoGroup), 500);
  EXPECT_EQ(SumUs(timings.suspended_behind_us), 500);
}

TEST_F(CoreTimings, AReplayCountsItsTimeUnderEarlierSchedulers) {
  Start(CoreHarness::Limits());
  runner_->Follow(1);
  auto submit = CoreHarness::SubmitEvent(MakeRecord("r1", 3, 2), 1);
  submit.message.replay = true;
  submit.message.age_us = 9000;
  runner_->Take(harness_.Step(submit));
  RunAll(100);
  const RequestTimings& timings = Timings(1);
  EXPECT_EQ(timings.earlier_us, 9000);
  EXPECT_EQ(timings.queue_us, 0);
  EXPECT_EQ(timings.prefill_us, 0);
  EXPECT_EQ(timings.replay_us, 100);
  EXPECT_EQ(timings.WholeUs(), 9000 + 200);
}

TEST_F(CoreTimings, ExplainSaysWhatIsKnownUntilNowAndChangesNothing) {
  GroupLimits limits = CoreHarness::Limits();
  limits.slots = 1;
  Start(limits);
  Submit(1, 3, 10);
  Submit(2, 3, 2);
  RunOne(100);
  RunOne(100);
  harness_.now += 50;
  const Explained running = harness_.core.Explain({"", "r1"}, harness_.now);
  EXPECT_TRUE(running.found);
  EXPECT_EQ(running.timings.phase, RequestPhase::kDecode);
  EXPECT_EQ(running.timings.WholeUs(), 250);
  EXPECT_EQ(running.generated_tokens, 2);
  EXPECT_EQ(running.max_tokens, 10);
  const Explained waiting = harness_.core.Explain({"", "r2"}, harness_.now);
  EXPECT_EQ(waiting.timings.phase, RequestPhase::kQueued);
  EXPECT_EQ(Behind(waiting.timings.queue_behind_us, WaitLimit::kSlots), 250);
  for (const Explained& each : {running, waiting}) {
    EXPECT_EQ(sim::WrongTimings(each.timings), "");
  }
  EXPECT_EQ(harness_.core.Explain({"", "r2"}, harness_.now), waiting);
  EXPECT_FALSE(harness_.core.Explain({"", "nobody"}, harness_.now).found);
  RunAll(100);
  EXPECT_EQ(harness_.core.Explain({"", "r2"}, harness_.now + 999).timings, Timings(2));
}

TEST_F(CoreTimings, AFailedRequestHasItsTimings) {
  Start(CoreHarness::Limits());
  Record record = MakeRecord("r1", 3, 20);
  for (record.seed = 1; sim::FaultAt(record.seed) < 1; ++record.seed) {
  }
  runner_->Follow(1);
  runner_->Take(harness_.Submit(record, 1));
  RunAll(100);
  EXPECT_FALSE(runner_->ledger(1).error.ok());
  EXPECT_EQ(Timings(1).stays.at(0).end, StayEnd::kFinished);
  EXPECT_GT(Timings(1).WholeUs(), 0);
}

}  // namespace
}  // namespace fathom::scheduler
