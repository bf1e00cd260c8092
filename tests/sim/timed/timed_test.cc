// Worlds of ten simulated minutes each, drawn from seeds: every policy, one to three groups, pools
// that are too small, every workload, several tenants, groups and routers that are lost. What is
// checked is listed in timed_world.h. FATHOM_SIM_MINUTES says how many simulated minutes are run
// (100; `tests/run --long` runs 2,000).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <string>

#include "cluster/protocol.h"
#include "scheduler/core/policy.h"
#include "tests/sim/model.h"
#include "tests/sim/timed/timed_world.h"

namespace fathom::sim {
namespace {

constexpr int32_t kMinutesOfWorld = 10;
constexpr TimeUs kTestSecondUs = 1'000'000;

int32_t SimulatedMinutes() {
  const char* text = std::getenv("FATHOM_SIM_MINUTES");
  return text == nullptr ? 100 : std::max(kMinutesOfWorld, std::atoi(text));
}

// A model of 33e9 parameters on a slow card: about 180 ms a step, so that ten minutes are few
// steps.
GroupCosts SlowCosts() {
  return {.shape = {.name = "slow",
                    .weight_bytes = 67e9,
                    .row_flops = 66e9,
                    .head_flops = 0.5e9,
                    .kv_token_bytes = 254e3,
                    .decode_pair_flops = 1.8e6,
                    .chunk_pair_flops = 1.8e6},
          .read_tbs = 0.5,
          .matrix_tflops = 100};
}

// How long a request may wait for its first slot: until all that the queue can hold is computed by
// one group, at the speed of full steps, for each tenant in turn; twice, because a loss of a group
// lets work be done again; and the time of the faults.
TimeUs WaitBound(const TimedOptions& options, int32_t tenants) {
  const scheduler::GroupLimits& limits = options.limits;
  const int64_t pool = int64_t{limits.blocks - 1} * limits.block_tokens;
  const int64_t together =
      std::max<int64_t>(1, std::min<int64_t>(limits.slots, pool / limits.context_tokens));
  const double step_us =
      StepUs(options.costs, {.rows = limits.step_tokens,
                             .sampled = limits.slots,
                             .decode_context = static_cast<double>(pool),
                             .chunk_context = static_cast<double>(pool),
                             .chunk_pairs = limits.step_tokens * 1.0 * limits.context_tokens});
  const double request_us = step_us * limits.context_tokens;
  const double queued = options.core.waiting_requests_max / static_cast<double>(together) + 1;
  return 2 * static_cast<TimeUs>(queued * request_us) * tenants + options.faults_until_us;
}

struct DrawnWorld {
  TimedOptions options;
  std::string what;
};

DrawnWorld DrawWorld(uint64_t seed) {
  std::mt19937_64 rng(seed);
  const auto between = [&](int32_t low, int32_t high) {
    return low + static_cast<int32_t>(rng() % static_cast<uint64_t>(high - low + 1));
  };
  DrawnWorld world;
  TimedOptions& options = world.options;
  options.seed = seed;
  const auto policies = scheduler::Policies();
  options.core = {.policy = std::string(policies[seed % policies.size()].name),
                  .waiting_requests_max = 64,
                  .record_keep_us = 2 * kTestSecondUs,
                  .router_grace_us = kTestSecondUs,
                  .prefix_caching = between(0, 3) > 0};
  options.limits = {.block_tokens = 16,
                    .slots = between(4, 12),
                    .step_tokens = between(64, 512),
                    .context_tokens = 512,
                    .plans_in_flight = between(1, 3)};
  // The least pool has room for one request of the longest kind. In half of the worlds the pool is
  // so small that sequences are preempted.
  const int32_t blocks_of_slot = between(0, 1) == 0 ? 16 : 1;
  options.limits.blocks = 1 + between(32, 32 + blocks_of_slot * options.limits.slots);
  options.limits.mixed_step_tokens = between(0, 1) * between(16, options.limits.step_tokens);
  options.limits.protocol = kProtocolMax;
  options.limits.host_blocks = between(0, 1) * between(32, 128);
  options.costs = SlowCosts();
  options.groups = between(1, 3);
  options.round_robin = between(0, 9) == 0;
  const int32_t tenants = between(1, 3);
  TrafficOptions traffic{
      .workload = {.name = client::kWorkloads[between(0, 3)],
                   .scale = 0.1,
                   .context_tokens = options.limits.context_tokens,
                   .seed = seed},
      .arrivals = between(0, 1) == 0 ? client::Arrivals::kPoisson : client::Arrivals::kBursty,
      .seconds = 60.0 * kMinutesOfWorld};
  if (traffic.workload.name == "long") traffic.workload.scale = 0.03;
  if (traffic.workload.name == "sharegpt") traffic.workload.scale = 0.3;
  // From little load to more than the groups can compute.
  const double rate = 0.1 * between(2, 14) * options.groups;
  for (int32_t i = 0; i < tenants; ++i) {
    traffic.tenants.push_back({fmt::format("tenant-{}", i), rate / tenants});
  }
  options.traffic = MakeTraffic(traffic);
  options.group_loss_us = between(20, 120) * kTestSecondUs;
  options.router_loss_us = between(20, 120) * kTestSecondUs;
  options.faults_until_us = 60 * (kMinutesOfWorld - 2) * kTestSecondUs;
  options.wait_us_max = WaitBound(options, tenants);
  // Under shortest-prompt a shorter request overtakes longer ones. With one group a request is
  // overtaken only while it waits for blocks.
  const bool ordered = options.core.policy != "shortest-prompt" && options.groups == 1;
  options.overtakes_max = ordered ? options.core.overtakes_max : -1;
  options.check_every_events = seed % 10 == 0 ? 1 : 64;
  world.what = fmt::format("seed {} {} {} x{}", seed, options.core.policy, traffic.workload.name,
                           options.groups);
  return world;
}

TEST(TimedSim, EveryInvariantHoldsInDrawnWorldsWithFaults) {
  const int32_t worlds = SimulatedMinutes() / kMinutesOfWorld;
  const uint64_t first = TestSeed(1000);
  int64_t calls = 0, refused = 0, steps = 0, events = 0, groups_lost = 0, routers_lost = 0;
  uint64_t preemptions = 0, swaps = 0;
  int64_t reused = 0;
  double minutes = 0;
  for (int32_t i = 0; i < worlds; ++i) {
    const DrawnWorld drawn = DrawWorld(first + static_cast<uint64_t>(i));
    TimedWorld world(drawn.options);
    world.Run();
    ASSERT_TRUE(world.failures().empty())
        << drawn.what << ": " << world.failures().front() << "\nFATHOM_SEED=" << drawn.options.seed
        << " FATHOM_SIM_MINUTES=10 build/release/tests/sim_timed_test";
    calls += std::ssize(world.calls());
    refused += std::ranges::count_if(world.calls(), &Call::refused);
    EXPECT_TRUE(std::ranges::all_of(world.calls(),
                                    [](const Call& c) { return c.answered() || c.refused; }));
    steps += world.report().steps;
    events += world.report().events;
    groups_lost += world.report().group_losses;
    routers_lost += world.report().router_losses;
    preemptions += world.stats().preemptions_total;
    swaps += world.stats().swaps_total;
    reused += world.report().reused_tokens;
    minutes += static_cast<double>(world.report().over_us) / 60e6;
  }
  fmt::print(
      "seeds from {}: {:.0f} simulated minutes, {} requests ({} refused by the queue's limit), {} "
      "steps, {} events, {} groups and {} routers lost, {} preemptions, {} swaps, {} prompt tokens "
      "from the prefix cache\n",
      first, minutes, calls, refused, steps, events, groups_lost, routers_lost, preemptions, swaps,
      reused);
  // What the worlds are for did occur.
  EXPECT_GT(groups_lost, worlds);
  EXPECT_GT(routers_lost, worlds);
  if (worlds >= 10) {
    EXPECT_GT(preemptions, 0u);
    EXPECT_GT(swaps, 0u);
  }
  EXPECT_GT(reused, 0);
  EXPECT_GT(calls, 100 * worlds);
  EXPECT_LT(refused, calls / 2);
}

TEST(TimedSim, TheSameSeedGivesTheSameRun) {
  const auto ends = [](uint64_t seed) {
    DrawnWorld drawn = DrawWorld(seed);
    drawn.options.end_us = 60 * kTestSecondUs;
    TimedWorld world(drawn.options);
    world.Run();
    EXPECT_TRUE(world.failures().empty());
    uint64_t hash = 0;
    for (const Call& call : world.calls()) {
      hash =
          Mix(Mix(hash, static_cast<uint64_t>(call.first_us)), static_cast<uint64_t>(call.end_us));
    }
    return hash;
  };
  const uint64_t seed = TestSeed(2000);
  EXPECT_EQ(ends(seed), ends(seed));
  EXPECT_NE(ends(seed), ends(seed + 1));
}

}  // namespace
}  // namespace fathom::sim
