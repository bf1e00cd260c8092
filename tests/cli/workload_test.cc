// The requests of `fathom bench serve`: arrivals and lengths by fixed formulas, sessions within the
// context.
#include "cli/bench/workload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fathom::client {
namespace {

constexpr int32_t kMany = 20'000;

std::vector<double> Gaps(Arrivals arrivals, double rate, uint64_t seed) {
  const std::vector<double> times = ArrivalTimes(arrivals, rate, kMany, seed);
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
  EXPECT_EQ(times.front(), 0);
  std::vector<double> gaps;
  for (size_t i = 1; i < times.size(); ++i) gaps.push_back(times[i] - times[i - 1]);
  return gaps;
}

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// The standard deviation over the mean: 1 for Poisson, 2 for a gamma of shape 1/4.
double Variation(const std::vector<double>& values) {
  const double mean = Mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(values.size())) / mean;
}

TEST(WorkloadTest, ArrivalsHaveTheirRateAndTheirShape) {
  for (const uint64_t seed : {1u, 2u, 3u}) {
    EXPECT_NEAR(Mean(Gaps(Arrivals::kPoisson, 8, seed)), 1.0 / 8, 1e-9);
    EXPECT_NEAR(Variation(Gaps(Arrivals::kPoisson, 8, seed)), 1, 0.05);
    EXPECT_NEAR(Mean(Gaps(Arrivals::kBursty, 8, seed)), 1.0 / 8, 1e-9);
    EXPECT_NEAR(Variation(Gaps(Arrivals::kBursty, 8, seed)), 2, 0.15);
    EXPECT_NEAR(Variation(Gaps(Arrivals::kEven, 8, seed)), 0, 1e-6);
  }
  EXPECT_EQ(ArrivalTimes(Arrivals::kPoisson, 2, 1, 7), std::vector<double>{0});
  EXPECT_EQ(ArrivalTimes(Arrivals::kBursty, 2, 50, 7), ArrivalTimes(Arrivals::kBursty, 2, 50, 7));
  EXPECT_NE(ArrivalTimes(Arrivals::kPoisson, 2, 50, 7), ArrivalTimes(Arrivals::kPoisson, 2, 50, 8));
}

TEST(WorkloadTest, ShareGptHasThePublishedMeans) {
  const Workload all = MakeWorkload({.name = "sharegpt", .context_tokens = 4096}, kMany);
  double input = 0, output = 0;
  for (const SessionPlan& session : all.sessions) {
    ASSERT_EQ(session.turns.size(), 1u);
    input += session.turns[0].new_tokens;
    output += session.turns[0].output_tokens;
  }
  EXPECT_NEAR(input / kMany, 215, 8);
  EXPECT_NEAR(output / kMany, 179, 8);
  EXPECT_EQ(all.shortened, 0);
}

TEST(WorkloadTest, EveryRequestFitsTheContext) {
  for (const char* const name : kWorkloads) {
    for (const double scale : {0.01, 0.25, 1.0, 4.0}) {
      for (const int32_t context : {2, 17, 600, 4096, 65536}) {
        const WorkloadOptions options{.name = name,
                                      .input_len = 100,
                                      .output_len = 50,
                                      .scale = scale,
                                      .context_tokens = context,
                                      .seed = 5};
        const Workload all = MakeWorkload(options, 40);
        EXPECT_GE(all.requests, 40);
        int32_t turns = 0;
        for (const SessionPlan& session : all.sessions) {
          int64_t used = session.prefix_tokens;
          ASSERT_FALSE(session.turns.empty());
          for (const TurnPlan& turn : session.turns) {
            ++turns;
            EXPECT_GE(turn.new_tokens, 1);
            EXPECT_GE(turn.output_tokens, 1);
            used += turn.new_tokens + turn.output_tokens;
            EXPECT_LE(used, context) << name << " " << scale;
          }
        }
        EXPECT_EQ(turns, all.requests);
      }
    }
  }
}

TEST(WorkloadTest, SharedPrefixesAreShared) {
  const Workload all = MakeWorkload({.name = "prefix", .context_tokens = 4096}, 100);
  std::vector<int32_t> counts(8);
  for (const SessionPlan& session : all.sessions) ++counts.at(session.prefix);
  EXPECT_GE(*std::max_element(counts.begin(), counts.end()), 10);
  EXPECT_EQ(PrefixTokens(1, 0, 2, 64, 1000), PrefixTokens(1, 0, 2, 64, 1000));
  EXPECT_NE(PrefixTokens(1, 0, 2, 64, 1000), PrefixTokens(1, 0, 3, 64, 1000));
  EXPECT_NE(PrefixTokens(1, 0, 2, 64, 1000), PrefixTokens(1, 1, 2, 64, 1000));
  EXPECT_NE(TurnTokens(1, 0, 2, 0, 64, 1000), TurnTokens(1, 0, 2, 1, 64, 1000));
  for (const TokenId id : TurnTokens(1, 0, 2, 0, 500, 30)) EXPECT_TRUE(id >= 0 && id < 30);
}

}  // namespace
}  // namespace fathom::client
