// An epoch from its first plan to its end, on a device with one step in flight and on one with
// several: order, bounds, aborts, faults and wrong plans. Random answers: step_loop_random_test.cc.
#include "worker/engine/step_loop.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>

#include "tests/worker/plan_channel.h"

namespace fathom::worker {
namespace {

constexpr int kSeveral = 3;

class StepLoopTest : public testing::Test {
 protected:
  explicit StepLoopTest(int steps_in_flight = kSeveral) : device_(kLoopLimits, steps_in_flight) {}

  void Start() {
    thread_ = std::thread([this] {
      ended_ = RunEpoch(epoch_, {&device_, &channel_, &clock_, &progress_, &stop_,
                                 [this](const auto&, const auto&, const StepStream& stream) {
                                   streams_.push_back(stream);
                                 }});
    });
  }
  const absl::Status& Join() {
    thread_.join();
    EXPECT_EQ(progress_.phase.load(), Phase::kIdle);
    EXPECT_EQ(device_.drains(), 1);
    return ended_;
  }
  // Runs all of `plans`, then the end of the stream.
  const absl::Status& Run(const std::vector<StepPlan>& plans) {
    for (const StepPlan& plan : plans) channel_.Send(plan);
    channel_.End(Unavailable("the stream ended"));
    Start();
    return Join();
  }

  // Plan `step` of one sequence with this prompt: step 0 computes the prompt, each later step one
  // token.
  static StepPlan Plan(uint64_t step, std::vector<TokenId> prompt = {7, 8, 9}) {
    StepPlan plan = PlanOf(step);
    if (step > 0) {
      plan.chunks = {{{1}, DecodeRow{{step - 1}}, true}};
      return plan;
    }
    plan.chunks = {{{1}, static_cast<int32_t>(prompt.size()), true}};
    AdmitTo(&plan, 1, std::move(prompt), {2, 3, 4});
    return plan;
  }

  const RealClock clock_;
  Progress progress_;
  FakeDevice device_;
  Epoch epoch_{LoopSeat(), 0};
  PlanChannel channel_{&epoch_};
  std::atomic<bool> stop_{false};
  std::vector<StepStream> streams_;
  std::thread thread_;
  absl::Status ended_;
};

// Tests that hold on every device.
class AnyDevice : public StepLoopTest, public testing::WithParamInterface<int> {
 protected:
  AnyDevice() : StepLoopTest(GetParam()) {}
};
INSTANTIATE_TEST_SUITE_P(StepLoop, AnyDevice, testing::Values(1, 2, kSeveral));

TEST_P(AnyDevice, ResultsAreOfThePlansInTheirOrder) {
  std::vector<StepPlan> plans;
  for (uint64_t step = 0; step < 40; ++step) plans.push_back(Plan(step));
  EXPECT_EQ(Message(Run(plans)), "the stream ended");
  const std::vector<StepResult> results = channel_.results();
  ASSERT_EQ(results.size(), 40u);
  std::vector<TokenId> ids = {7, 8, 9};
  for (uint64_t step = 0; step < 40; ++step) {
    EXPECT_EQ(results[step].step, StepId{step});
    EXPECT_EQ(results[step].rows.at(0).position, static_cast<int32_t>(step));
    ASSERT_EQ(results[step].rows.at(0).ids, std::vector{GreedyNext(ids)});
    ids.push_back(GreedyNext(ids));
  }
  EXPECT_EQ(progress_.step.load(), 39u);
  EXPECT_EQ(progress_.word.load(), 80u);
}

TEST_P(AnyDevice, AWrongPlanEndsTheEpochAfterTheStepsBeforeIt) {
  const absl::Status& ended = Run({Plan(0), Plan(1), Plan(3), Plan(2)});
  EXPECT_EQ(ended.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Message(ended),
            "a plan of term 3, epoch 5, step 3; term 3, epoch 5, step 2 was to come");
  EXPECT_EQ(channel_.results().size(), 2u);
}

TEST_P(AnyDevice, AnErrorOfTheDeviceEndsTheEpoch) {
  device_.FailNext(Aborted("a collective was aborted"));
  EXPECT_EQ(Message(Run({Plan(0), Plan(1)})), "a collective was aborted");
  EXPECT_TRUE(channel_.results().empty());
}

TEST_P(AnyDevice, AResultThatCannotBeWrittenEndsTheEpoch) {
  channel_.FailWriteAfter(2);
  std::vector<StepPlan> plans;
  for (uint64_t step = 0; step < 20; ++step) plans.push_back(Plan(step));
  EXPECT_EQ(Message(Run(plans)), "no more results");
  EXPECT_EQ(channel_.results().size(), 2u);
  EXPECT_EQ(streams_.size(), 2u);
}

TEST_P(AnyDevice, ANewEpochBeginsEmptyOnTheSameDevice) {
  Run({Plan(0), Plan(1)});
  const std::vector<StepResult> first = channel_.results();
  PlanChannel again(&epoch_);
  again.Send(Plan(0));
  again.Send(Plan(1));
  again.End(Unavailable("the stream ended"));
  EXPECT_EQ(RunEpoch(epoch_, {&device_, &again, &clock_, &progress_, &stop_, nullptr}).code(),
            absl::StatusCode::kUnavailable);
  ASSERT_EQ(again.results().size(), 2u);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(again.results()[i].rows, first.at(i).rows);
}

TEST_P(AnyDevice, AFaultedSequenceFaultsUntilItsReleaseWhichZeroesItsBlocks) {
  StepPlan first = PlanOf(0);
  AdmitTo(&first, 1, {1, kPoison, 2}, {2, 3});
  AdmitTo(&first, 2, {4, 5, 6}, {4});
  AdmitTo(&first, 3, {1, kFakeVocab},
          {5});  // This token id does not exist, which the plan alone shows.
  first.chunks = {{{1}, 3, true}, {{2}, 3, true}, {{3}, 2, true}};
  StepPlan second = PlanOf(1);  // Made before the faults were known.
  for (int32_t slot = 1; slot <= 3; ++slot) second.chunks.push_back({{slot}, DecodeRow{{0}}, true});
  StepPlan third = PlanOf(2);
  third.releases = {{1}, {2}, {3}};
  AdmitTo(&third, 1, {4, 5, 6}, {3});
  third.chunks = {{{1}, 3, true}};
  StepPlan fourth = PlanOf(3);  // A sequence without a fault zeroes nothing, in the same slot.
  fourth.releases = {{1}};
  channel_.SendAfterResults(0, first);
  channel_.SendAfterResults(0, second);
  channel_.SendAfterResults(2, third);
  channel_.SendAfterResults(2, fourth);
  Run({});
  const std::vector<StepResult> results = channel_.results();
  ASSERT_EQ(results.size(), 4u);
  const RowFault faults[] = {RowFault::kNonFiniteLogits, RowFault::kNone,
                             RowFault::kTokenOutOfRange};
  std::vector<TokenId> ids = {4, 5, 6};
  for (size_t step = 0; step < 2; ++step) {
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(results[step].rows.at(i).fault, faults[i]) << step << " " << i;
      EXPECT_EQ(results[step].rows[i].ids.empty(), faults[i] != RowFault::kNone);
    }
    EXPECT_EQ(results[step].rows[1].ids, std::vector{GreedyNext(ids)});
    ids.push_back(GreedyNext(ids));
  }
  EXPECT_EQ(results[0].rows[0].fault_detail, "rows 0 + 3");
  EXPECT_EQ(results[1].rows[0].fault_detail, "rows 0 + 1");
  EXPECT_EQ(results[0].rows[2].fault_detail, "");
  EXPECT_EQ(results[2].rows.at(0).ids, results[0].rows[1].ids);
  EXPECT_EQ(device_.zeroed(), (std::vector<BlockId>{{2}, {3}, {5}}));
}

std::vector<TokenId> CountTo(int32_t count, std::vector<TokenId> then) {
  std::vector<TokenId> ids;
  for (int32_t i = 0; i < count; ++i) ids.push_back(i);
  ids.insert(ids.end(), then.begin(), then.end());
  return ids;
}

// Blocks that a clean sample attended to may be shared, so a fault leaves them as they are: those
// that the sequence was admitted with, and those of its own before the fault.
TEST_P(AnyDevice, AFaultZeroesNoBlockThatACleanSampleCovered) {
  StepPlan first = PlanOf(0);
  AdmitTo(&first, 1, CountTo(16, {20, 21}), {2, 3});
  AdmitTo(&first, 4, CountTo(16, {22, 23}), {6, 7});
  first.admits[1].request.sampling.logit_bias = {{kPoison, 100.0f}};  // Draws it.
  first.chunks = {{{1}, 18, true}, {{4}, 18, true}};
  StepPlan second = PlanOf(1);
  AdmitTo(&second, 2, CountTo(16, {kPoison, 2}), {2, 4});
  second.admits[0].computed_tokens = 16;
  second.chunks = {{{2}, 2, true}, {{1}, DecodeRow{{0}}, true}, {{4}, DecodeRow{{0}}, true}};
  StepPlan third = PlanOf(2);
  third.releases = {{2}, {4}};
  AdmitTo(&third, 3, CountTo(16, {24}), {2, 5});
  AdmitTo(&third, 5, CountTo(16, {25}), {6, 8});
  for (Admit& admit : third.admits) admit.computed_tokens = 16;
  third.chunks = {{{3}, 1, true}, {{5}, 1, true}, {{1}, DecodeRow{{1}}, true}};
  channel_.SendAfterResults(0, first);
  channel_.SendAfterResults(0, second);
  channel_.SendAfterResults(2, third);
  Run({});
  const std::vector<StepResult> results = channel_.results();
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[1].rows[0].fault, RowFault::kNonFiniteLogits);
  EXPECT_EQ(results[1].rows[2].fault, RowFault::kNonFiniteLogits);
  EXPECT_EQ(device_.zeroed(), (std::vector<BlockId>{{4}, {7}}));
  EXPECT_EQ(results[2].rows[0].ids, std::vector{GreedyNext(CountTo(16, {24}))});
  EXPECT_EQ(results[2].rows[1].ids, std::vector{GreedyNext(CountTo(16, {25}))});
  std::vector<TokenId> ids = CountTo(16, {20, 21});
  const int32_t row_of_first[] = {0, 1, 2};
  for (size_t step = 0; step < 3; ++step) {
    const ResultRow& row = results[step].rows[static_cast<size_t>(row_of_first[step])];
    ASSERT_EQ(row.ids, std::vector{GreedyNext(ids)}) << step;
    ids.push_back(row.ids[0]);
  }
}

// The fault of a sequence becomes known after another one was admitted to its slot.
TEST_P(AnyDevice, AFaultConcernsNoLaterSequenceOfTheSlot) {
  StepPlan first = PlanOf(0);
  AdmitTo(&first, 1, {1, kPoison, 2}, {2});
  first.chunks = {{{1}, 3, true}};
  StepPlan second = PlanOf(1);
  second.releases = {{1}};
  AdmitTo(&second, 1, {4, 5, 6}, {3});
  second.chunks = {{{1}, 3, true}};
  StepPlan third = PlanOf(2);
  third.releases = {{1}};
  AdmitTo(&third, 2, {4, 5, 6, 7}, {3});
  third.admits[0].computed_tokens = 3;
  third.chunks = {{{2}, 1, true}};
  device_.Hold();
  for (const StepPlan& plan : {first, second, third}) channel_.Send(plan);
  channel_.End(Unavailable("the stream ended"));
  Start();
  device_.WaitInFlight(static_cast<uint64_t>(std::min(GetParam(), 3)));
  device_.LetAll();
  Join();
  const std::vector<StepResult> results = channel_.results();
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[2].rows.at(0).ids, std::vector{GreedyNext({4, 5, 6, 7})});
  EXPECT_EQ(std::ranges::count(device_.zeroed(), BlockId{3}), 0);
}

// A block of the faulty sequence that a copy of the same plan fills for its next sequence.
TEST_P(AnyDevice, AReleaseAfterAFaultLeavesWhatThePlanCopied) {
  StepPlan first = PlanOf(0);
  AdmitTo(&first, 1, {1, kPoison, 2}, {2, 3});
  AdmitTo(&first, 2, {4, 5, 6}, {4});
  first.chunks = {{{1}, 3, true}, {{2}, 3, true}};
  StepPlan second = PlanOf(1);
  second.copies = {{.from = {4}, .to = {3}}};
  second.releases = {{1}};
  AdmitTo(&second, 3, {4, 5, 6, 7}, {3});
  second.admits[0].computed_tokens = 3;
  second.chunks = {{{3}, 1, true}};
  channel_.SendAfterResults(0, first);
  channel_.SendAfterResults(1, second);
  Run({});
  const std::vector<StepResult> results = channel_.results();
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[1].rows.at(0).ids, std::vector{GreedyNext({4, 5, 6, 7})});
  EXPECT_EQ(device_.zeroed(), std::vector<BlockId>{{2}});
}

TEST_P(AnyDevice, ADetailNamesTheRowsBehindTheOneTokenChunks) {
  StepPlan plan = PlanOf(0);
  AdmitTo(&plan, 1, {1, kPoison, 2}, {2});
  AdmitTo(&plan, 2, {4}, {4});
  AdmitTo(&plan, 3, {kPoison}, {5});
  plan.chunks = {{{1}, 3, true}, {{2}, 1, true}, {{3}, 1, true}};
  Run({plan});
  ASSERT_EQ(channel_.results().size(), 1u);
  const std::vector<ResultRow> rows = channel_.results()[0].rows;
  EXPECT_EQ(rows.at(0).fault_detail, "rows 2 + 3");
  EXPECT_EQ(rows.at(1).fault, RowFault::kNone);
  EXPECT_EQ(rows.at(2).fault_detail, "rows 1 + 1");
}

TEST_P(AnyDevice, AStepsTimesAreInTheirOrder) {
  Run({Plan(0), Plan(1), Plan(2)});
  ASSERT_EQ(streams_.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const StepStream& stream = streams_[i];
    EXPECT_GE(stream.read_us, 0);
    EXPECT_LE(stream.read_at_us, stream.submit_from_us);
    EXPECT_LE(stream.collected_at_us, stream.ready_at_us);
    if (GetParam() == 1) {  // Computed inside of Submit.
      EXPECT_EQ(stream.submit_end_us, stream.collected_at_us - FakeDevice::kComputeUs);
    } else {
      EXPECT_LE(stream.submit_from_us, stream.submit_end_us);
    }
    EXPECT_EQ(stream.device_us, FakeDevice::kDeviceUs);
    EXPECT_EQ(stream.device_idle_us, FakeDevice::kIdleUs);
    EXPECT_EQ(stream.graph, i > 0);
    const StepTimings timings = channel_.results()[i].timings;
    EXPECT_EQ(timings.compute_us, FakeDevice::kComputeUs);
    EXPECT_EQ(timings.read_to_write_us, stream.ready_at_us - stream.read_at_us);
  }
}

TEST_F(StepLoopTest, PlansAreReadAndQueuedWhileStepsRunAndNoMoreThanTheDeviceTakes) {
  device_.Hold();
  for (uint64_t step = 0; step < 10; ++step) channel_.Send(Plan(step));
  channel_.End(Unavailable("the stream ended"));
  Start();
  device_.WaitInFlight(kSeveral);
  channel_.WaitReads(kSeveral + 1);  // The next plan waits, because the device has no room.
  EXPECT_EQ(progress_.phase.load(), Phase::kStepping);
  EXPECT_TRUE(channel_.results().empty());
  device_.LetAll();
  EXPECT_EQ(Join().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(channel_.results().size(), 10u);
}

TEST_F(StepLoopTest, AnAbortedEpochWritesNothingOfTheStepsInFlight) {
  device_.Hold();
  for (uint64_t step = 0; step < 2; ++step) channel_.Send(Plan(step));
  Start();
  device_.WaitInFlight(2);
  epoch_.Abort(Aborted("a test ends it"));  // Ends the waiting Read, too.
  device_.LetAll();
  EXPECT_EQ(Message(Join()), "a test ends it");
  EXPECT_TRUE(channel_.results().empty());
  EXPECT_TRUE(streams_.empty());
}

TEST_F(StepLoopTest, AStopComesAfterTheStepsInFlight) {
  device_.Hold();
  for (uint64_t step = 0; step < 2; ++step) channel_.Send(Plan(step));
  Start();
  channel_.WaitReading(2);
  stop_ = true;
  channel_.Send(Plan(2));  // The Read that already waits still gets a plan.
  device_.LetAll();
  EXPECT_TRUE(Join().ok());
  EXPECT_EQ(channel_.results().size(), 3u);
}

}  // namespace
}  // namespace fathom::worker
