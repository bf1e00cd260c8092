// Records steps on demand: the next steps, at most as many as asked for. The wait always ends.
#include "worker/engine/step_trace.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace fathom::worker {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kLong{60'000};  // Never reached; otherwise the test hangs.
const auto kPatient = [] { return false; };

struct Step {
  StepPlan plan;
  StepResult result;
  StepStream stream;
};

Step StepOf(uint64_t id) {
  Step step;
  step.plan.term = {3};
  step.plan.epoch = {9};
  step.plan.step = {id};
  step.plan.chunks = {{{1}, 100, true}, {{2}, DecodeRow{}, true}, {{3}, DecodeRow{}, true}};
  step.result.timings.compute_us = 500;
  step.stream.read_us = 20;
  step.stream.read_at_us = 1000;
  step.stream.submit_from_us = 1005;
  step.stream.submit_end_us = 1100;
  step.stream.collected_at_us = 1700;
  step.stream.ready_at_us = 1710;
  step.stream.write_us = 30;
  step.stream.graph = true;
  return step;
}

// Runs steps until it is stopped, like an engine thread.
class Engine {
 public:
  explicit Engine(StepRecorder* recorder)
      : thread_([this, recorder] {
          for (uint64_t id = 0; !stop_; ++id) {
            const Step step = StepOf(id);
            recorder->OnStep(step.plan, step.result, step.stream);
          }
        }) {}
  ~Engine() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

TEST(StepRecorder, CapturesTheNextStepsInOrder) {
  StepRecorder recorder;
  Engine engine(&recorder);
  for (const int32_t count : {1, 20, 1000}) {
    const auto steps = recorder.Capture(count, kLong, kPatient);
    ASSERT_TRUE(steps.ok());
    ASSERT_EQ(std::ssize(*steps), count);
    for (size_t i = 0; i < steps->size(); ++i) {
      EXPECT_EQ((*steps)[i].step.value, (*steps)[0].step.value + i);
    }
  }
}

TEST(StepRecorder, AStepAsItWas) {
  StepRecorder recorder;
  Engine engine(&recorder);
  const auto steps = recorder.Capture(1, kLong, kPatient);
  ASSERT_TRUE(steps.ok());
  StepTrace want;
  want.term = {3};
  want.epoch = {9};
  want.step = steps->at(0).step;
  want.chunks = 3;
  want.prompt_chunks = 1;
  want.prompt_tokens = 100;
  want.decode_rows = 2;
  want.graph = true;
  want.wait_from_us = 980;
  want.read_at_us = 1000;
  want.submit_from_us = 1005;
  want.submit_end_us = 1100;
  want.device_from_us = 1200;
  want.device_end_us = 1700;
  want.ready_at_us = 1710;
  want.written_at_us = 1740;
  EXPECT_EQ(steps->at(0), want);
}

TEST(StepRecorder, RefusesWhatItCannotHold) {
  StepRecorder recorder;
  for (const int32_t count : {-1, 0, kTraceStepsMax + 1}) {
    EXPECT_EQ(recorder.Capture(count, kLong, kPatient).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(StepRecorder, GivesWhatThereIsWhenTheTimePassesOrNobodyWaits) {
  StepRecorder recorder;
  EXPECT_TRUE(recorder.Capture(5, milliseconds(1), kPatient)->empty());
  EXPECT_TRUE(recorder.Capture(5, kLong, [] { return true; })->empty());
}

TEST(StepRecorder, OneAtATimeAndCloseEndsIt) {
  StepRecorder recorder;
  std::atomic<bool> waits{false};
  std::thread first([&] {
    const auto steps = recorder.Capture(kTraceStepsMax, kLong, [&] {
      waits = true;
      return false;
    });
    EXPECT_TRUE(steps.ok() && steps->size() == 1);
  });
  while (!waits) std::this_thread::yield();
  EXPECT_EQ(recorder.Capture(1, kLong, kPatient).status().code(),
            absl::StatusCode::kResourceExhausted);
  const Step step = StepOf(4);
  recorder.OnStep(step.plan, step.result, step.stream);
  recorder.Close();
  first.join();
  recorder.OnStep(step.plan, step.result, step.stream);
  EXPECT_EQ(recorder.Capture(1, kLong, kPatient).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace fathom::worker
