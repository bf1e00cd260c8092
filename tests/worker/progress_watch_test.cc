#include "worker/progress_watch.h"

#include <gtest/gtest.h>

namespace fathom::worker {
namespace {

constexpr int64_t kQuietUs = 30'000'000;

TEST(ProgressWatch, AStepThatStandsStill) {
  ManualClock clock;
  Progress progress;
  ProgressWatch watch(&progress, &clock, kQuietUs);
  progress.phase = Phase::kStepping;
  progress.BeginStep(StepId{7}, {});
  watch.Look();
  clock.Advance(kQuietUs);
  watch.Look();
  EXPECT_TRUE(watch.Moves().ok());
  clock.Advance(1);
  watch.Look();
  EXPECT_EQ(Message(watch.Moves()), "step 7 has made no progress for 30.0 s");
  ++progress.word;
  watch.Look();
  EXPECT_TRUE(watch.Moves().ok());
}

// The thread that calls Look loads the model, for longer than a step may stand still; a supervisor
// that asks meanwhile must not end the process.
TEST(ProgressWatch, ALongLoadIsNoStep) {
  ManualClock clock;
  Progress progress;
  ProgressWatch watch(&progress, &clock, kQuietUs);
  for (const Phase phase : {Phase::kStarting, Phase::kLoading, Phase::kIdle}) {
    progress.phase = phase;
    clock.Advance(10 * kQuietUs);
    EXPECT_TRUE(watch.Moves().ok()) << static_cast<int>(phase);
  }
  watch.Look();
  progress.phase = Phase::kStepping;
  EXPECT_TRUE(watch.Moves().ok());
}

}  // namespace
}  // namespace fathom::worker
