#include "client/bench_stats.h"

#include <gtest/gtest.h>

namespace fathom::client {
namespace {

TEST(BenchStatsTest, NearestRank) {
  EXPECT_EQ(Distribute({}).median, 0);
  const Distribution one = Distribute({4});
  EXPECT_EQ(one.median, 4);
  EXPECT_EQ(one.p99, 4);
  std::vector<double> values;
  for (int i = 200; i >= 1; --i) values.push_back(i);
  const Distribution many = Distribute(values);
  EXPECT_EQ(many.median, 100);
  EXPECT_EQ(many.p90, 180);
  EXPECT_EQ(many.p99, 198);
  EXPECT_EQ(many.max, 200);
  EXPECT_EQ(many.mean, 100.5);
}

TEST(BenchStatsTest, DefinitionsCountTokensNotFrames) {
  // First token after 10 ms, then a frame of two tokens 4 ms later, then one 3 ms later.
  RequestTrace trace{.sent_us = 1000,
                     .end_us = 20'000,
                     .frames = {{11'000, 1}, {15'000, 2}, {18'000, 1}},
                     .prompt_tokens = 7};
  const BenchSummary s = Summarize({trace}, 20'000);
  EXPECT_EQ(s.requests, 1);
  EXPECT_EQ(s.output_tokens, 4);
  EXPECT_EQ(s.prompt_tokens, 7);
  EXPECT_DOUBLE_EQ(s.ttft_ms.median, 10);
  EXPECT_DOUBLE_EQ(s.tpot_ms.median, 7.0 / 3);
  EXPECT_DOUBLE_EQ(s.itl_ms.median, 2);  // 2, 2, 3.
  EXPECT_DOUBLE_EQ(s.itl_ms.max, 3);
  EXPECT_DOUBLE_EQ(s.e2e_ms.median, 19);
  EXPECT_DOUBLE_EQ(s.output_tokens_per_s, 200);
  EXPECT_DOUBLE_EQ(s.total_tokens_per_s, 550);
}

TEST(BenchStatsTest, OneTokenHasNoTpot) {
  const BenchSummary s = Summarize({{.sent_us = 0, .end_us = 5, .frames = {{4, 1}}}}, 5);
  EXPECT_EQ(s.tpot_ms.max, 0);
  EXPECT_EQ(s.itl_ms.max, 0);
}

}  // namespace
}  // namespace fathom::client
