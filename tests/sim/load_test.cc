// The core under load: a tenant far above its share, limits whose delays are obeyed, deadlines that
// are refused at once, and requests that wait for blocks while others overtake them.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "tests/sim/load_world.h"
#include "tests/sim/model.h"

namespace fathom::sim {
namespace {

// Times between which lie geometric numbers of steps of 1/64 of the mean: nearly a Poisson process,
// and the same with every library.
class Arrivals {
 public:
  Arrivals(uint64_t seed, double per_second) : rng_(seed), mean_us_(1e6 / per_second) {}
  TimeUs Next() {
    do {
      at_us_ += mean_us_ / 64;
    } while (rng_() % 64 != 0);
    return static_cast<TimeUs>(at_us_);
  }
  int32_t Draw(int32_t from, int32_t to) {
    return from + static_cast<int32_t>(rng_() % static_cast<uint64_t>(to - from + 1));
  }

 private:
  std::mt19937_64 rng_;
  const double mean_us_;
  double at_us_ = 1000;
};

int64_t P95(std::vector<int64_t> values) {
  std::ranges::sort(values);
  return values.at(values.size() * 95 / 100);
}

// The p95 of the time to the first token of tenant "b" while "a" sends `factor` times its share.
// Three tenants share the group; each share is a third of 80 % of what it can do.
// running_max: of tenant "a".
int64_t P95OfOther(const std::string& policy, double factor, uint64_t seed,
                   int32_t running_max = 0) {
  LoadOptions options;
  options.tenants.tenants["a"].running_max = running_max;
  options.core.policy = policy;
  options.core.waiting_requests_max = 1 << 20;
  LoadWorld world(options);
  // A step of 32 rows takes 9.3 ms and a prompt of 200 rows 8 ms more, so 32 slots do about 12
  // requests of 200 prompt and 200 answer tokens in a second.
  constexpr double kShare = 12 * 0.8 / 3;
  constexpr TimeUs kSeconds = 60;
  for (const auto& [tenant, rate] :
       {std::pair<std::string, double>{"a", kShare * factor}, {"b", kShare}, {"c", kShare}}) {
    Arrivals arrivals(seed ^ std::hash<std::string>{}(tenant), rate);
    for (TimeUs at = arrivals.Next(); at < kSeconds * 1'000'000; at = arrivals.Next()) {
      world.Add(tenant, at, arrivals.Draw(50, 350), arrivals.Draw(50, 350));
    }
  }
  world.Run(kSeconds * 1'000'000);
  std::vector<int64_t> first_token;
  for (const LoadRequest& request : world.requests()) {
    if (request.record.key.tenant != "b") continue;
    const TimeUs at = request.first_token_us >= 0 ? request.first_token_us : world.now();
    first_token.push_back(at - request.at_us);
  }
  EXPECT_GT(first_token.size(), 120u);
  return P95(first_token);
}

TEST(Load, ATenantFarAboveItsShareHardlyMovesAnother) {
  const uint64_t seed = TestSeed(30);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  // A quarter of the slots is for "a": then the others find free ones.
  const int64_t before = P95OfOther("fair", 1, seed, 8);
  const int64_t after = P95OfOther("fair", 20, seed, 8);
  // Without the limit all slots are taken, and the others wait until one becomes free.
  const int64_t policy_alone = P95OfOther("fair", 20, seed);
  const int64_t fcfs = P95OfOther("fcfs", 20, seed);
  fmt::print(
      "p95 of b's first token: {} us; with a at 20 times its share {} us ({:+.1f} %), without "
      "running_max {} us, and with fcfs {} us\n",
      before, after, 100.0 * static_cast<double>(after - before) / static_cast<double>(before),
      policy_alone, fcfs);
  EXPECT_LE(after, before * 6 / 5);
  EXPECT_LE(policy_alone, fcfs / 20);
  EXPECT_GT(fcfs, 100 * before);  // The load does move it without policy and limit.
}

// Bursts that fill a limit: clients that obey the delay of their refusal are admitted when they
// come back, at least 95 of 100.
TEST(Load, WhoObeysTheDelayOfARefusalIsAdmitted) {
  const uint64_t seed = TestSeed(31);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  struct Case {
    const char* name;
    LoadOptions options;
    const char* reason;
  };
  std::vector<Case> cases(5);
  cases[0] = {"queue, requests", {}, "QUEUE_FULL"};
  cases[0].options.core.waiting_requests_max = 50;
  cases[1] = {"queue, tokens", {}, "QUEUE_FULL"};
  cases[1].options.core.waiting_tokens_max = 10'000;
  cases[2] = {"tenant, requests", {}, "TENANT_QUEUE_FULL"};
  cases[2].options.tenants.defaults.queued_max = 50;
  cases[3] = {"tenant, tokens", {}, "TENANT_QUEUE_FULL"};
  cases[3].options.tenants.defaults.queued_tokens_max = 10'000;
  cases[4] = {"tenant, tokens per minute", {}, "TENANT_RATE_LIMIT"};
  cases[4].options.tenants.defaults.tokens_per_minute = 180'000;
  for (Case& each : cases) {
    LoadWorld world(each.options);
    Arrivals arrivals(seed, 18);  // The group does about 12 in a second.
    for (TimeUs at = arrivals.Next(); at < 60'000'000; at = arrivals.Next()) {
      world.Add("t", at, arrivals.Draw(50, 350), arrivals.Draw(50, 350));
    }
    world.Run();
    int64_t refused = 0, at_once = 0;
    for (const LoadRequest& request : world.requests()) {
      EXPECT_GE(request.end_us, 0);
      if (request.tries == 1) continue;
      EXPECT_EQ(request.refused, each.reason);
      ++refused;
      at_once += request.tries == 2 ? 1 : 0;
    }
    fmt::print("{}: {} of {} requests were refused; {} of them were admitted when they came back\n",
               each.name, refused, world.requests().size(), at_once);
    EXPECT_GT(refused, 100);
    EXPECT_GE(at_once * 100, refused * 95);
  }
}

// A request that is refused because of its deadline would have had no token before it: the same
// request without a deadline, sent at the same time, proves it.
TEST(Load, WhatIsRefusedForItsDeadlineWouldHaveMissedIt) {
  const uint64_t seed = TestSeed(32);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  for (const std::string policy : {"fcfs", "fair", "shortest-prompt", "priority"}) {
    LoadOptions options;
    options.core.policy = policy;
    options.obey = false;
    LoadWorld world(options);
    std::vector<std::pair<size_t, TimeUs>> twins;  // And the deadline of the other.
    int64_t queue = 0;
    world.on_refused = [&](size_t index, const Refused& refused) {
      const LoadRequest request = world.requests()[index];
      EXPECT_EQ(request.refused, "DEADLINE_UNREACHABLE");
      EXPECT_NE(Message(refused.status).find("deadline"), std::string_view::npos);
      queue += DetailOf(refused.status)->retry_after_ms > 0 ? 1 : 0;
      twins.emplace_back(
          world.Add(request.record.key.tenant, world.now(), std::ssize(request.record.prompt_ids),
                    request.record.request.stop.max_tokens, 0, request.record.priority),
          world.now() + request.deadline_us);
    };
    Arrivals arrivals(seed, 20);
    for (TimeUs at = arrivals.Next(); at < 60'000'000; at = arrivals.Next()) {
      const int32_t prompt = arrivals.Draw(0, 9) == 0 ? 3000 : arrivals.Draw(50, 350);
      const int64_t deadline_us = arrivals.Draw(0, 2) == 0 ? arrivals.Draw(1'000, 3'000'000) : 0;
      world.Add(arrivals.Draw(0, 1) == 0 ? "a" : "b", at, prompt, arrivals.Draw(50, 350),
                deadline_us, arrivals.Draw(-1, 1));
    }
    world.Run();
    for (const auto& [twin, deadline_at] : twins) {
      EXPECT_GT(world.requests()[twin].first_token_us, deadline_at) << policy;
    }
    fmt::print("{}: {} requests were refused for their deadline, {} because of the queue\n", policy,
               twins.size(), queue);
    if (policy == "fcfs" || policy == "fair") {
      EXPECT_GT(queue, 20);
    }
  }
}

// A long prompt that waits for blocks is overtaken by at most so many short ones.
TEST(Load, ALongPromptIsOvertakenSoOftenOnly) {
  const uint64_t seed = TestSeed(33);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  for (const int32_t overtakes_max : {0, 1, 16, 100}) {
    LoadOptions options;
    options.core.overtakes_max = overtakes_max;
    options.limits.blocks = 129;  // 2048 tokens.
    LoadWorld world(options);
    Arrivals arrivals(seed, 30);
    std::vector<size_t> lengthy;
    for (TimeUs at = arrivals.Next(); at < 20'000'000; at = arrivals.Next()) {
      const bool is_long = arrivals.Draw(0, 49) == 0;
      const size_t index = world.Add("t", at, is_long ? 1500 : arrivals.Draw(20, 60), 40);
      if (is_long) lengthy.push_back(index);
    }
    world.Run();
    int64_t most = 0;
    for (const size_t index : lengthy) {
      const LoadRequest& request = world.requests()[index];
      ASSERT_GE(request.first_token_us, 0);
      // Those that came later and had their first token before it.
      const int64_t before = std::ranges::count_if(world.requests(), [&](const LoadRequest& each) {
        return each.at_us > request.at_us && each.first_token_us < request.first_token_us;
      });
      most = std::max(most, before);
      EXPECT_LE(before, overtakes_max + 32);  // And those that are admitted in the same steps.
    }
    fmt::print("overtakes_max {}: a long prompt was overtaken {} times at most, {} in all\n",
               overtakes_max, most, world.stats().overtakes_total);
    if (overtakes_max == 0) {
      EXPECT_EQ(world.stats().overtakes_total, 0u);
    }
    if (overtakes_max >= 16) {
      EXPECT_GT(world.stats().overtakes_total, 100u);
    }
  }
}

}  // namespace
}  // namespace fathom::sim
