// What the scheduler tells about its workers: what each rank does and which one it waits for, how
// workers differ, how a group started, and why workers are in no group.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/scheduler/worker_group_world.h"

namespace fathom::scheduler {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class WorkerReportTest : public WorkerGroupTest {
 protected:
  // A heartbeat of a rank in this place of a step.
  void At(int i, uint64_t step, Activity activity, int32_t layer, uint64_t collective) {
    groups_.OnHeartbeat(Control(i),
                        {.phase = Phase::kStepping,
                         .step = StepId{step},
                         .collective = collective,
                         .progress = progress_,
                         .work = {activity, layer, collective}},
                        now_, &out_);
  }
  // Rank 1 stands before the others in layer 2, whose all-reduce rank 0 has begun.
  void HangInRank1(int64_t us) {
    for (const TimeUs end = now_ + us; now_ < end;) {
      now_ += options_.tick_us;
      At(0, 0, Activity::kAttention, 2, 5);
      At(1, 0, Activity::kMlp, 1, 4);
      groups_.OnTick(now_, &out_);
    }
  }
  static Hello On(Hello hello, const std::string& machine, const std::string& kind) {
    hello.worker->machine = machine;
    hello.worker->host = "host-" + machine;
    hello.worker->shared_memory = "1:1";
    hello.worker->device_kind = kind;
    return hello;
  }
};

TEST_F(WorkerReportTest, SaysWhereEachRankIsAndWhichOneTheOthersWaitFor) {
  BringUp();
  EXPECT_EQ(DescribeWork(groups_.Reports(now_).at(0)), "UNSPECIFIED");
  Pass(options_.tick_us, {0, 1});
  EXPECT_EQ(DescribeWork(groups_.Reports(now_).at(0)), "between steps, the last one was step 0");
  Plan(0);
  HangInRank1(3'000'000);
  const std::vector<RankReport> reports = groups_.Reports(now_);
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(DescribeWork(reports[0]),
            "step 0, layer 2 attention, collective 5 of the step, no progress for 3.0 s, waits for "
            "rank 1");
  EXPECT_EQ(DescribeWork(reports[1]),
            "step 0, layer 1 MLP, collective 4 of the step, no progress for 3.0 s");
  EXPECT_EQ(reports[0].waits_for, 1);
  EXPECT_EQ(reports[1].waits_for, -1);
  EXPECT_EQ(reports[1].process_id, "b");
  EXPECT_GT(groups_.Stats().longest_still_us, 2'500'000);
}

TEST_F(WorkerReportTest, ALossNamesTheStepTheLayerAndTheCollectiveOfEachRank) {
  BringUp();
  Plan(0);
  HangInRank1(options_.stall_us + 500'000);
  ExpectLost("rank 1 (process b): no progress");
  EXPECT_THAT(out_.log[0],
              AllOf(HasSubstr("rank 1: step 0, layer 1 MLP, collective 4 of the step"),
                    HasSubstr("rank 0: step 0, layer 2 attention, collective 5 of the step"),
                    HasSubstr("waits for rank 1")));
  EXPECT_THAT(groups_.Stats().last_loss, AllOf(HasSubstr("rank 1: no progress"),
                                               HasSubstr("last heard: step 0, layer 1 MLP")));
}

// Two GPUs meet twice in each layer, so one that stands still is noticed before a CPU's long op
// would be. Over NCCL a GPU does not tell its meetings.
TEST_F(WorkerReportTest, AGpuThatTellsItsMeetingsIsLostSooner) {
  BringUp();
  Plan(0);
  const auto hang_in_rank1 = [&](Activity doing, int64_t us) {
    for (const TimeUs end = now_ + us; now_ < end;) {
      now_ += options_.tick_us;
      At(0, 0, Activity::kAttention, 2, 5);
      At(1, 0, doing, 1, 4);
      groups_.OnTick(now_, &out_);
    }
  };
  ASSERT_LT(options_.device_stall_us, 5'000'000);
  hang_in_rank1(Activity::kOnDevice, options_.device_stall_us + 500'000);
  EXPECT_THAT(out_.lost, IsEmpty());
  hang_in_rank1(Activity::kMlp, options_.tick_us);
  ExpectLost("rank 1 (process b): no progress");
}

// Also of a process that is gone: its last heartbeat counts.
TEST_F(WorkerReportTest, TheLossOfAProcessNamesItsLastPlace) {
  BringUp();
  Plan(0);
  HangInRank1(500'000);
  groups_.OnControlDown(Control(1), "reset", now_, &out_);
  ExpectLost("rank 1");
  EXPECT_THAT(groups_.Stats().last_loss, HasSubstr("last heard: step 0, layer 1 MLP"));
}

TEST_F(WorkerReportTest, AStartIsOneTimelineOfAllRanks) {
  Hello first = HelloOf("a", 0), second = HelloOf("b", 1);
  first.worker->age_us = 900'000;  // It started 0.9 s ago, 0.1 s after the other one.
  first.worker->startup = {{StartPhase::kProcess, 10'000, 0}, {StartPhase::kWeights, 500'000, 70}};
  second.worker->age_us = 1'000'000;
  Join(0, first);
  Join(1, second);
  epoch_ = SeatOf(0)->epoch;
  now_ += 200'000;
  GroupReady ready{kTerm, epoch_, 0, first.worker->startup};
  ready.startup.push_back({StartPhase::kConnected, 1'050'000, 0});
  groups_.OnReady(Control(0), ready, now_, &out_);
  groups_.OnStepsHello(Steps(0), {kTerm, epoch_, 0, "a"}, now_, &out_);
  EXPECT_THAT(groups_.facts().starts, IsEmpty());
  now_ += 300'000;
  groups_.OnReady(Control(1), {kTerm, epoch_, 1, {}}, now_, &out_);
  groups_.OnStepsHello(Steps(1), {kTerm, epoch_, 1, "b"}, now_, &out_);
  ASSERT_EQ(groups_.facts().starts.size(), 1u);
  const GroupStart start = groups_.facts().starts[0];
  EXPECT_EQ(start.us, 1'500'000);
  ASSERT_EQ(start.ranks.size(), 2u);
  EXPECT_EQ(start.ranks[0].marks, (std::vector<StartMark>{{StartPhase::kProcess, 110'000, 0},
                                                          {StartPhase::kWeights, 600'000, 70},
                                                          {StartPhase::kConnected, 1'150'000, 0},
                                                          {StartPhase::kReady, 1'200'000, 0}}));
  EXPECT_EQ(SlowestOf(start), 1u);
  EXPECT_THAT(out_.log, Contains(HasSubstr("started in 1.5 s; rank 1 was ready last")));

  // The next group of the same processes begins when it is formed: nothing is loaded again.
  groups_.OnAbort({out_.up[0].group, epoch_, "for the test"}, now_, &out_);
  EXPECT_THAT(groups_.facts().starts, IsEmpty());
  now_ += 1'000'000;
  groups_.OnTick(now_, &out_);
  out_.up.clear();
  Ready();
  ASSERT_EQ(groups_.facts().starts.size(), 1u);
  EXPECT_LE(groups_.facts().starts[0].us, 1'000'000);
  for (const RankStart& rank : groups_.facts().starts[0].ranks) {
    ASSERT_EQ(rank.marks.size(), 1u);
    EXPECT_EQ(rank.marks[0].phase, StartPhase::kReady);
  }
}

// What a worker says may be anything; what routers get stays in the ranges of the wire.
TEST_F(WorkerReportTest, AnAgeBeyondADayCountsAsADay) {
  Hello first = HelloOf("a", 0);
  first.worker->age_us = int64_t{1} << 53;
  first.worker->startup = {{StartPhase::kWeights, int64_t{1} << 53, 0}};
  Join(0, first);
  Join(1, HelloOf("b", 1));
  Ready();
  ASSERT_EQ(groups_.facts().starts.size(), 1u);
  const GroupStart& start = groups_.facts().starts[0];
  EXPECT_EQ(start.us, int64_t{24} * 3600 * 1'000'000);
  for (const StartMark& mark : start.ranks[0].marks) EXPECT_LE(mark.at_us, start.us);
}

TEST_F(WorkerReportTest, ASlowStartSaysNowAndThenWhichRankIsInWhichPhase) {
  Join(0, HelloOf("a", 0));
  Join(1, HelloOf("b", 1));
  const GroupActions formed = std::exchange(out_, {});
  const auto lines = [&](int64_t us) {
    out_.log.clear();
    for (const TimeUs end = now_ + us; now_ < end;) {
      now_ += options_.tick_us;
      Beat(0, Phase::kConnecting);
      Beat(1, Phase::kLoading);
      groups_.OnTick(now_, &out_);
    }
    return out_.log;
  };
  EXPECT_THAT(lines(4'900'000), IsEmpty());
  EXPECT_THAT(groups_.waiting(), HasSubstr("rank 1 (process b on h) in LOADING"));
  EXPECT_EQ(groups_.Reports(now_).at(0).waits_for, 1);
  EXPECT_EQ(lines(400'000).size(), 1u);
  EXPECT_THAT(out_.log[0], AllOf(HasSubstr("rank 0 (process a on h) in CONNECTING for 5."),
                                 HasSubstr("rank 1 (process b on h) in LOADING for 5.")));
  EXPECT_THAT(lines(9'500'000), IsEmpty());  // Then after 10, 20, 40, 60, 60 s.
  EXPECT_EQ(lines(65'000'000).size(), 3u);
  EXPECT_EQ(lines(120'000'000).size(), 2u);
  out_ = formed;
  Ready();
  groups_.OnTick(now_, &out_);
  EXPECT_EQ(groups_.waiting(), "");
}

TEST_F(WorkerReportTest, MissingRanksAreNamed) {
  Hello hello = HelloOf("a", 1);
  hello.worker->tp = 4;
  Join(0, hello);
  Pass(options_.tick_us, {0});
  EXPECT_THAT(groups_.waiting(), HasSubstr("rank 1 on h; missing: rank 0, 2, 3"));
}

TEST_F(WorkerReportTest, RanksOnTheCpuOfTwoHostsAreRefusedByName) {
  Join(0, On(HelloOf("a", 0), "m0", "cpu"));
  Join(1, On(HelloOf("b", 1), "m1", "cpu"));
  EXPECT_FALSE(SeatOf(0) || SeatOf(1));
  groups_.OnTick(now_, &out_);
  EXPECT_TRUE(groups_.Stats().apart);
  EXPECT_THAT(groups_.waiting(),
              AllOf(HasSubstr("rank 0 on host-m0"), HasSubstr("rank 1 on host-m1"),
                    HasSubstr("start all of a group's ranks on one host")));
  out_ = {};
  Pass(options_.note_us, {0, 1});
  EXPECT_THAT(out_.log, Contains(HasSubstr("rank 1 on host-m1")));

  // Containers of one machine with a /dev/shm each are like hosts.
  Hello container = On(HelloOf("c", 1), "m0", "cpu");
  container.worker->shared_memory = "2:1";
  Join(2, container);
  EXPECT_FALSE(SeatOf(2));
  // Under another name of the host, memory can still be shared.
  Hello other = On(HelloOf("d", 1), "m0", "cpu");
  other.worker->host = "another name";
  Join(3, other);
  EXPECT_TRUE(SeatOf(0) && SeatOf(3));
  groups_.OnTick(now_, &out_);
  EXPECT_TRUE(groups_.Stats().apart);  // The two others: b and c.
  groups_.OnControlDown(Control(1), "left", now_, &out_);
  groups_.OnTick(now_, &out_);
  EXPECT_FALSE(groups_.Stats().apart);
}

TEST_F(WorkerReportTest, GpusOfSeveralHostsFormAGroupByTheirRanksAlone) {
  // Group 0 has ranks 0 and 1, group 1 has ranks 2 and 3.
  Join(0, On(HelloOf("a", 0), "m0", "cuda-sm90"));
  Join(1, On(HelloOf("b", 2), "m1", "cuda-sm90"));
  EXPECT_FALSE(SeatOf(0) || SeatOf(1));
  Join(2, On(HelloOf("c"), "m2", "cuda-sm90"));
  EXPECT_FALSE(SeatOf(2));
  groups_.OnTick(now_, &out_);
  EXPECT_THAT(groups_.waiting(), HasSubstr("GPUs of several hosts form a group only by --rank"));
  Join(3, On(HelloOf("d", 1), "m1", "cuda-sm90"));  // With b it would fill m1, but in rank order.
  const bool on_m1 = SeatOf(1).has_value();
  EXPECT_TRUE(SeatOf(3));
  EXPECT_TRUE(on_m1);  // One host comes first.
  EXPECT_FALSE(SeatOf(0));
  Join(4, On(HelloOf("e", 1), "m3", "cuda-sm90"));
  ASSERT_TRUE(SeatOf(0) && SeatOf(4));
  EXPECT_EQ(SeatOf(0)->rank, 0);
  EXPECT_EQ(SeatOf(4)->rank, 1);
  EXPECT_EQ(SeatOf(4)->peers[0].machine, "m0");
  EXPECT_FALSE(OnOneMachine(SeatOf(4)->peers[0], SeatOf(4)->peers[1]));
}

TEST_F(WorkerReportTest, DifferencesAreNamedWithBothValuesAndAWayOut) {
  Hello first = HelloOf("a", 0);
  first.build = "1.0+a";
  first.worker->card = "H100";
  Join(0, first);
  const auto log_of = [&](const std::function<void(Hello&)>& change) {
    Hello hello = first;
    hello.process_id = "b";
    change(hello);
    out_ = {};
    Join(1, hello);
    std::string text = out_.log.empty() ? "" : out_.log[0];
    groups_.OnControlDown(Control(1), "left", now_, &out_);
    return text;
  };
  EXPECT_EQ(log_of([](Hello&) {}), "");
  EXPECT_THAT(log_of([](Hello& h) { h.worker->dtype = "float16"; }),
              AllOf(HasSubstr("worker b"), HasSubstr("worker a"),
                    HasSubstr("dtype float16 here and bfloat16 there"), HasSubstr("--dtype")));
  EXPECT_THAT(log_of([](Hello& h) { h.worker->card = "H200"; }),
              AllOf(HasSubstr("card H200 here and H100 there"), HasSubstr("slowest card"),
                    HasSubstr("keep their bits")));
  EXPECT_THAT(log_of([](Hello& h) { h.build = "1.0+b"; }), HasSubstr("build 1.0+b here"));
  EXPECT_THAT(log_of([](Hello& h) {
                h.worker->device_kind = "cuda-sm80";
                h.worker->card = "A100";
              }),
              AllOf(HasSubstr("device kind cuda-sm80 here"), Not(HasSubstr("keep their bits"))));
  EXPECT_THAT(log_of([](Hello& h) { h.worker->tp = 4; }),
              HasSubstr("tensor parallelism 4 here and 2 there"));
}

}  // namespace
}  // namespace fathom::scheduler
