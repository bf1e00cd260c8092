// Each run sends thousands of requests through the scheduler core, with clients that leave and come
// back, lost routers, lost groups and new leaders. Each request ends exactly once with exactly the
// expected tokens, nothing leaks, and the same seed gives the same actions.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "scheduler/core/policy.h"
#include "tests/sim/model.h"
#include "tests/sim/sim_world.h"

namespace fathom::sim {
namespace {

// 2,500 in tests/run, where the program is sanitized; `tests/run --long` sets 10,000.
int32_t RequestsOfRun() {
  const char* text = std::getenv("FATHOM_SIM_REQUESTS");
  return text == nullptr ? 2'500 : std::max(100, std::atoi(text));
}

std::string Replay(uint64_t seed) {
  return fmt::format("FATHOM_SEED={} FATHOM_SIM_REQUESTS={} build/release/tests/sim_scheduler_test",
                     seed, RequestsOfRun());
}

void ExpectClean(const World& world, const WorldOptions& options) {
  for (const std::string& failure : world.failures()) ADD_FAILURE() << failure;
  const WorldReport& report = world.report();
  EXPECT_EQ(report.ended + report.abandoned + report.refused + report.mismatched, report.listeners);
  EXPECT_EQ(world.stats().blocks_used, 0);
  // The faults did occur.
  EXPECT_GT(report.group_losses, 0);
  EXPECT_GT(report.router_losses, 0);
  EXPECT_GT(report.resumes, options.requests / 10);
  EXPECT_GT(world.stats().preemptions_total, 0u);
  EXPECT_GT(world.stats().prefix_hit_tokens_total, 0u);
  EXPECT_GT(world.stats().prefix_evicted_blocks_total, 0u);
  EXPECT_GT(world.stats().tokens_dropped_total, 0u);
  if (options.drain_permille > 0) {
    EXPECT_GT(report.drained, 0);
  }
  fmt::print(
      "seed {} policy {}: {} clients, {} ended ({} by end token, {} length, {} Close, {} deadline, "
      "{} fault), {} abandoned, {} refused, {} mismatched; {} steps, {} events, {} groups, {} "
      "routers and {} leaders lost, {} groups drained, {} resumes\n",
      options.seed, options.policy, report.listeners, report.ended,
      report.by_reason[static_cast<size_t>(FinishReason::kEndToken)],
      report.by_reason[static_cast<size_t>(FinishReason::kLength)],
      report.by_reason[static_cast<size_t>(FinishReason::kStopString)],
      report.by_reason[static_cast<size_t>(FinishReason::kDeadline)],
      report.by_reason[static_cast<size_t>(FinishReason::kError)], report.abandoned, report.refused,
      report.mismatched, report.steps, report.events, report.group_losses, report.router_losses,
      report.takeovers, report.drained, report.resumes);
}

class SchedulerSimSeeds : public testing::TestWithParam<int> {};

TEST_P(SchedulerSimSeeds, EveryRequestEndsOnceUnderEveryPolicy) {
  for (const scheduler::PolicyRow& policy : scheduler::Policies()) {
    WorldOptions options;
    options.seed = TestSeed(20) + static_cast<uint64_t>(GetParam());
    options.policy = std::string(policy.name);
    options.limits.host_blocks = GetParam() * 16;
    options.requests = RequestsOfRun();
    options.retry_us = 3'000'000;  // Most events would be refusals otherwise.
    options.several_permille = 100;
    options.drain_permille = 200;
    SCOPED_TRACE(Replay(options.seed));
    World world(options);
    world.Run();
    ExpectClean(world, options);
    EXPECT_GT(world.report().takeovers, 0);
    EXPECT_EQ(world.stats().swap_blocks_used, 0);
    EXPECT_EQ(world.stats().swapped_in_blocks_total > 0, options.limits.host_blocks > 0);
  }
}
INSTANTIATE_TEST_SUITE_P(Run, SchedulerSimSeeds, testing::Range(0, 3));

// Sequences whose next step must wait for their last token, with all faults.
TEST(SchedulerSim, WithoutRunAheadEveryRequestEndsOnceToo) {
  WorldOptions options;
  options.seed = TestSeed(60);
  options.requests = 2'000;
  options.run_ahead_max = 0;
  SCOPED_TRACE(Replay(options.seed));
  World world(options);
  world.Run();
  ExpectClean(world, options);
}

// Groups of two, three and five pipeline stages: a lane for each stage and one plan more, with all
// faults.
TEST(SchedulerSim, PlansInLanesEndEveryRequestOnceToo) {
  for (const int32_t stages : {2, 3, 5}) {
    WorldOptions options;
    options.seed = TestSeed(80);
    options.requests = 1'500;
    options.check_every_events = 256;
    options.retry_us = 3'000'000;
    options.limits.plans_in_flight = stages + 1;
    options.limits.lanes = stages;
    options.several_permille = 100;
    options.drain_permille = 200;
    SCOPED_TRACE(fmt::format("{} stages, {}", stages, Replay(options.seed)));
    World world(options);
    world.Run();
    ExpectClean(world, options);
  }
}

// Groups that speculate: rows with results of 1 to K + 1 tokens, alone and in lanes, with all
// faults. The pool is small, so drafts often get no block.
TEST(SchedulerSim, GroupsThatDraftEndEveryRequestWithTheSameTokens) {
  for (const int32_t stages : {1, 3}) {
    for (const int32_t drafts : {1, 4, 16}) {
      WorldOptions options;
      options.seed = TestSeed(90) + static_cast<uint64_t>(drafts);
      options.requests = 1'500;
      options.check_every_events = 64;
      options.limits.draft_max = drafts;
      options.limits.plans_in_flight = stages + 1;
      options.limits.lanes = stages;
      SCOPED_TRACE(fmt::format("{} drafts, {} stages, {}", drafts, stages, Replay(options.seed)));
      World world(options);
      world.Run();
      ExpectClean(world, options);
      const scheduler::CoreStats stats = world.stats();
      EXPECT_GT(stats.draft_rows_total, 0u);
      EXPECT_GT(stats.accepted_draft_tokens_total, 0u);
      EXPECT_LT(stats.accepted_draft_tokens_total, stats.drafted_tokens_total);
    }
  }
}

// With this seed a leader takes over with one token of a client's 14, and a group of another kind
// is all that is left.
TEST(SchedulerSim, NoAnswerIsOfTwoHalvesThatDoNotBelongTogether) {
  WorldOptions options;
  options.seed = 100;
  options.requests = 1'200;
  SCOPED_TRACE(Replay(options.seed));
  World world(options);
  world.Run();
  ExpectClean(world, options);
}

TEST(SchedulerSim, InvariantsHoldAfterEveryEventAndActionsRepeat) {
  WorldOptions options;
  options.seed = TestSeed(50);
  options.requests = 600;
  options.check_every_events = 1;
  options.group_loss_permille = 600;
  options.router_loss_permille = 300;
  options.several_permille = 200;
  options.drain_permille = 800;
  SCOPED_TRACE(Replay(options.seed));
  World first(options);
  first.Run();
  options.check_every_events = 2048;
  World second(options);
  second.Run();
  ExpectClean(first, options);
  EXPECT_EQ(first.action_hash(), second.action_hash());
  options.seed += 1;
  World other(options);
  other.Run();
  EXPECT_NE(first.action_hash(), other.action_hash());
}

TEST(SchedulerSim, APoolThatOneRequestFills) {
  WorldOptions options;
  options.seed = TestSeed(70);
  options.requests = 600;
  options.groups = 1;
  options.arrival_us_max = 150'000;
  options.several_permille = 50;
  options.check_every_events = 8;
  // The longest request (40 + 30 - 1 tokens) takes all 18 blocks, so all other sequences are
  // suspended for it.
  options.limits = {.blocks = 19,
                    .block_tokens = 4,
                    .slots = 4,
                    .step_tokens = 7,
                    .context_tokens = 70,
                    .plans_in_flight = 3,
                    .mixed_step_tokens = 5,
                    .protocol = kProtocol2};
  SCOPED_TRACE(Replay(options.seed));
  World world(options);
  world.Run();
  ExpectClean(world, options);
}

}  // namespace
}  // namespace fathom::sim
