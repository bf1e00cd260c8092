// A group of several stages: its limits, which rank answers, and which rank is named when all stand
// still because of one.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "tests/scheduler/worker_group_world.h"

namespace fathom::scheduler {
namespace {

// Four workers: two stages of two ranks. Ranks 2 and 3 are the last stage, and rank 2 answers.
class PipelineTest : public WorkerGroupTest {
 protected:
  static constexpr int kRanks = 4;
  const std::vector<int> all_ = {0, 1, 2, 3};

  void BringUpPipeline() {
    for (int i = 0; i < kRanks; ++i) {
      Hello hello = HelloOf(std::string(1, static_cast<char>('a' + i)), i);
      hello.worker->pp = 2;
      hello.worker->limits.pool_blocks = i == 2 ? 41 : 101;  // Its stage has larger blocks.
      Join(i, hello);
      EXPECT_EQ(SeatOf(i).has_value(), i + 1 == kRanks);
    }
    epoch_ = SeatOf(0)->epoch;
    for (int i = 0; i < kRanks; ++i) {
      const std::string process(1, static_cast<char>('a' + i));
      groups_.OnReady(Control(i), {kTerm, epoch_, i}, now_, &out_);
      groups_.OnStepsHello(Steps(i), {kTerm, epoch_, i, process}, now_, &out_);
    }
    ASSERT_EQ(out_.up.size(), 1u);
    group_ = out_.up[0].group;
  }
  // A heartbeat of rank `i`, which has begun so many collectives and has made progress.
  void Work(int i, uint64_t collective) {
    groups_.OnHeartbeat(
        Control(i), {.phase = Phase::kStepping, .collective = collective, .progress = ++progress_},
        now_, &out_);
  }
  // Time passes; the `still` ranks repeat their words, the others make progress.
  void PassBeside(int64_t us, const std::vector<int>& still, uint64_t collective) {
    std::map<int, uint64_t> words;
    for (const int i : still) words[i] = 1000 + static_cast<uint64_t>(i);
    for (int64_t end = now_ + us; now_ < end;) {
      now_ += options_.tick_us;
      for (const int i : all_) {
        if (!words.contains(i)) {
          Work(i, collective);
          continue;
        }
        groups_.OnHeartbeat(
            Control(i),
            {.phase = Phase::kStepping, .collective = collectives_[i], .progress = words[i]}, now_,
            &out_);
      }
      groups_.OnTick(now_, &out_);
    }
  }

  std::map<int, uint64_t> collectives_;
};

TEST_F(PipelineTest, HasALaneForEachStageAndTheLeastPool) {
  BringUpPipeline();
  EXPECT_EQ(SeatOf(3)->shape(), (GroupShape{2, 2}));
  EXPECT_EQ(SeatOf(3)->rank, 3);
  EXPECT_EQ(SeatOf(0)->blocks, 41);
  const GroupLimits& limits = out_.up[0].limits;
  EXPECT_EQ(limits.blocks, 41);
  EXPECT_EQ(limits.lanes, 2);
  EXPECT_EQ(limits.plans_in_flight, 3);
}

TEST_F(PipelineTest, OnlyTheFirstRankOfTheLastStageAnswersTheCore) {
  BringUpPipeline();
  EXPECT_EQ(Plan(0).size(), 4u);
  for (const int rank : {0, 1, 3}) EXPECT_FALSE(Result(rank, 0)) << rank;
  EXPECT_TRUE(Result(2, 0));
  EXPECT_EQ(groups_.StepsInFlight(), 0);
}

// All ranks stand still, and only one of them waits for no other. Which one it is follows from the
// steps, then from the stages, then from the collectives.
TEST_F(PipelineTest, TheRankThatTheOthersWaitForIsNamed) {
  struct Case {
    std::vector<int> answered;            // Ranks that have answered step 0.
    std::map<int, uint64_t> collectives;  // Begun by each rank.
    int stuck;
  };
  const Case cases[] = {
      {{}, {{0, 5}, {1, 4}, {2, 1}, {3, 1}}, 1},          // Rank 0 waits for it in a collective.
      {{}, {{0, 3}, {1, 5}, {2, 1}, {3, 1}}, 0},          // The other way round.
      {{0, 1}, {{0, 9}, {1, 9}, {2, 7}, {3, 6}}, 3},      // The first stage waits for samples.
      {{0, 1}, {{0, 1}, {1, 1}, {2, 30}, {3, 40}}, 2},    // Counts of stages do not compare.
      {{0, 1, 3}, {{0, 9}, {1, 9}, {2, 12}, {3, 7}}, 2},  // Rank 3 is in the next step.
  };
  for (const Case& one : cases) {
    out_ = {};
    BringUpPipeline();
    Plan(0);
    Plan(1);
    for (const int rank : one.answered) Result(rank, 0);
    out_ = {};
    collectives_ = one.collectives;
    PassBeside(options_.stall_us + 1'000'000, all_, 0);
    ExpectLost(fmt::format("rank {} ", one.stuck));
    EXPECT_NE(out_.log[0].find("no progress"), std::string::npos) << out_.log[0];
    for (const int i : all_) groups_.OnControlDown(Control(i), "left", now_, &out_);
  }
}

// The last stage works longer on a step than a rank may stand still. The others wait for it, also
// after it has answered; none of them is lost.
TEST_F(PipelineTest, ARankThatWaitsForASlowStageIsNotLost) {
  BringUpPipeline();
  Plan(0);
  Plan(1);
  for (const int rank : {0, 1}) Result(rank, 0);
  out_ = {};
  collectives_ = {{0, 8}, {1, 8}, {3, 8}};
  PassBeside(3 * options_.stall_us, {0, 1}, 7);
  EXPECT_TRUE(out_.lost.empty());
  PassBeside(2 * options_.stall_us, {0, 1, 3}, 7);  // Rank 3 waits for rank 2 in a collective.
  EXPECT_TRUE(out_.lost.empty());
  Result(2, 0);
  Result(3, 0);
  PassBeside(options_.stall_us - 1'000'000, all_, 0);
  EXPECT_TRUE(out_.lost.empty()) << "the first stage can go on only now";
  PassBeside(2'000'000, all_, 0);
  EXPECT_EQ(out_.lost.size(), 1u);
}

}  // namespace
}  // namespace fathom::scheduler
