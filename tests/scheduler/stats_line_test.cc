#include "scheduler/stats_line.h"

#include <gtest/gtest.h>

namespace fathom::scheduler {
namespace {

TEST(StatsLine, HasTheRatesSinceTheLastLine) {
  StatsLine line(10'000'000, 5);
  CoreStats stats;
  stats.steps_total = 100;
  stats.prompt_tokens_total = 1'000;
  stats.generation_tokens_total = 505;
  stats.requests_running = 3;
  stats.requests_waiting = 3;
  stats.waiting_by_limit = {2, 0, 1, 0};
  stats.blocks_total = 400;
  stats.blocks_used = 50;
  EXPECT_EQ(line.Take(stats, 10'000'004), std::nullopt);
  EXPECT_EQ(line.Take(stats, 10'000'005),
            "100.0 prompt tokens/s, 50.5 generated tokens/s, 10.0 steps/s; running 3, waiting 3 "
            "(slots 2, no_group 1); KV cache 12.5 %");
  stats.generation_tokens_total += 20;
  stats.preemptions_total = 2;
  stats.failovers_total = 1;
  stats.refused_total = 7;
  stats.requests_waiting = 0;
  stats.waiting_by_limit = {};
  // A line that is late has the rates of the whole time.
  EXPECT_EQ(line.Take(stats, 30'000'005),
            "0.0 prompt tokens/s, 1.0 generated tokens/s, 0.0 steps/s; running 3, waiting 0; KV "
            "cache 12.5 %, 2 preemptions, 1 failovers, 7 refused");
}

TEST(StatsLine, IsSilentWhenIdleOrOff) {
  StatsLine line(1'000'000, 0), off(0, 0);
  CoreStats stats;
  stats.steps_total = 1;
  EXPECT_NE(line.Take(stats, 1'000'000), std::nullopt);
  EXPECT_EQ(line.Take(stats, 2'000'000), std::nullopt);
  EXPECT_EQ(line.next_us(), 3'000'000);
  stats.requests_waiting = 1;  // Nothing is computed, but somebody waits.
  EXPECT_NE(line.Take(stats, 3'000'000), std::nullopt);
  EXPECT_EQ(off.next_us(), INT64_MAX);
  EXPECT_EQ(off.Take(stats, INT64_MAX - 1), std::nullopt);
}

}  // namespace
}  // namespace fathom::scheduler
