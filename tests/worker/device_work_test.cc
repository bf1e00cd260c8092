// Which step, layer and collective a GPU is in follows from the number of its last meeting.
#include "worker/comm/device_work.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace fathom::worker {
namespace {

constexpr int32_t kFirstLayer = 4;
using Kind = CommBegan::Kind;

// A step of `layers` layers with this many meetings for each all-reduce, and one pass of the head:
// an exchange and a gather.
CommCounts StepOf(uint64_t layers, uint64_t each) { return {2 * layers, 2, 2 * layers * each + 2}; }

TEST(DeviceWork, EveryMeetingOfEveryStepHasItsPlace) {
  for (const uint64_t each : {1, 2}) {
    StepsOnDevice steps;
    constexpr uint64_t kLayers = 3;
    uint64_t meeting = 0;
    for (uint64_t step = 0; step < 100; ++step) {
      steps.Queue(StepId{step}, StepOf(kLayers, each));
      uint64_t collective = 0;
      for (int32_t layer = kFirstLayer; layer < kFirstLayer + 3; ++layer) {
        for (const Activity part : {Activity::kAttention, Activity::kMlp}) {
          ++collective;
          for (uint64_t i = 0; i < each; ++i) {
            const DeviceWork now =
                steps.WorkOf({Kind::kReduce, static_cast<uint32_t>(++meeting)}, kFirstLayer);
            EXPECT_EQ(now.step, StepId{step});
            EXPECT_EQ(now.work, (RankWork{part, layer, collective}));
            EXPECT_EQ(now.collectives, meeting);
          }
        }
      }
      for (int i = 0; i < 2; ++i) {
        const DeviceWork now =
            steps.WorkOf({Kind::kGather, static_cast<uint32_t>(++meeting)}, kFirstLayer);
        EXPECT_EQ(now.step, StepId{step});
        EXPECT_EQ(now.work, (RankWork{Activity::kHead, -1, ++collective}));
      }
    }
  }
}

TEST(DeviceWork, TheHostMayBeSeveralStepsAhead) {
  StepsOnDevice steps;
  for (uint64_t step = 0; step < 6; ++step) steps.Queue(StepId{step}, StepOf(2, step < 3 ? 1 : 2));
  // Steps 0 to 2 have 6 meetings each, steps 3 to 5 have 10. The 20th is the second of step 3.
  const DeviceWork now = steps.WorkOf({Kind::kReduce, 20}, 0);
  EXPECT_EQ(now.step, StepId{3});
  EXPECT_EQ(now.work, (RankWork{Activity::kAttention, 0, 1}));
}

TEST(DeviceWork, NumbersWrapAround) {
  StepsOnDevice steps;
  const CommCounts many{0, uint64_t{1} << 32, (uint64_t{1} << 32) - 3};
  steps.Queue(StepId{0}, many);
  steps.Queue(StepId{1}, StepOf(2, 1));
  const DeviceWork now = steps.WorkOf({Kind::kReduce, 1}, 0);  // 2^32 + 1
  EXPECT_EQ(now.step, StepId{1});
  EXPECT_EQ(now.collectives, (uint64_t{1} << 32) + 1);
  EXPECT_EQ(now.work, (RankWork{Activity::kMlp, 1, 4}));
}

TEST(DeviceWork, WhatIsNotKnownIsNotSaid) {
  StepsOnDevice steps;
  EXPECT_EQ(steps.WorkOf({Kind::kReduce, 7}, 0).work, (RankWork{Activity::kOnDevice, -1, 0}));
  steps.Queue(StepId{3}, {});  // A comm that counts nothing.
  EXPECT_EQ(steps.WorkOf({}, 0).step, StepId{3});
  EXPECT_EQ(steps.WorkOf({}, 0).work, (RankWork{Activity::kOnDevice, -1, 0}));
  EXPECT_EQ(steps.WorkOf({Kind::kMessage, 0}, 0).work.activity, Activity::kStageMessage);
  steps.Clear();
  steps.Queue(StepId{0}, StepOf(1, 1));
  // The device begins a step whose counts the host notes only when all of it is queued.
  EXPECT_EQ(steps.WorkOf({Kind::kReduce, 5}, 0).work.activity, Activity::kOnDevice);
  EXPECT_EQ(steps.WorkOf({Kind::kReduce, 1}, 0).work, (RankWork{Activity::kAttention, 0, 1}));
}

}  // namespace
}  // namespace fathom::worker
