// The figures of `fathom bench serve`: goodput, the growth of a queue, metrics for a baseline, the
// page.
#include "cli/bench/serve_stats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/bench/bench_json.h"

namespace fathom::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// `count` requests, one each 100 ms, with a first token `ttft_ms` after the due time that grows by
// `growth_ms` from one to the next, and 4 more tokens 10 ms apart.
RoundResult Round(int count, double ttft_ms, double growth_ms = 0) {
  RoundResult round{.wall_us = count * 100'000};
  for (int i = 0; i < count; ++i) {
    const TimeUs due_us = i * 100'000;
    RequestTrace trace{.sent_us = due_us, .prompt_tokens = 100};
    const auto first_us = due_us + static_cast<TimeUs>((ttft_ms + growth_ms * i) * 1000);
    for (int k = 0; k < 5; ++k) trace.frames.push_back({first_us + k * 10'000, 1});
    trace.end_us = trace.frames.back().at_us;
    round.requests.push_back(std::move(trace));
  }
  return round;
}

TEST(ServeStatsTest, GoodputCountsRequestsThatMeetEveryLimit) {
  RoundResult round = Round(10, 20);
  round.requests[3].frames[0].at_us -= 15'000;  // First token after 5 ms, then a longer gap.
  round.failed = 10;
  const LoadLevel level = Measure(10, {round}, {.ttft_ms = 100, .tpot_ms = 12});
  EXPECT_DOUBLE_EQ(level.good_share, 9.0 / 20);  // A failed one is not good.
  EXPECT_DOUBLE_EQ(level.goodput_per_s, 9);
  EXPECT_DOUBLE_EQ(level.summary.requests_per_s, 10);
  EXPECT_TRUE(Meets(round.requests[0], {.ttft_ms = 20, .tpot_ms = 10, .e2e_ms = 60}));
  EXPECT_FALSE(Meets(round.requests[0], {.ttft_ms = 19}));
  EXPECT_FALSE(Meets(round.requests[0], {.tpot_ms = 9}));
  EXPECT_FALSE(Meets(round.requests[0], {.e2e_ms = 59}));
  EXPECT_TRUE(Meets(round.requests[0], {.ttft_ms = 0, .tpot_ms = 0, .e2e_ms = 0}));
  EXPECT_FALSE(Meets({}, {.ttft_ms = 0, .tpot_ms = 0}));
}

TEST(ServeStatsTest, AGrowingQueueIsSeen) {
  EXPECT_FALSE(Measure(10, {Round(40, 20)}, {}).saturated());
  EXPECT_FALSE(Measure(10, {Round(40, 800)}, {}).saturated());  // Slow, but it keeps up.
  for (const double growth_ms : {50.0, 200.0, 1000.0}) {        // Too slow by 1.5, 3 and 11 times.
    const LoadLevel level = Measure(10, {Round(40, 20, growth_ms)}, {});
    EXPECT_TRUE(level.saturated()) << growth_ms << " " << level.growth;
    EXPECT_NEAR(level.growth, 2.2, 0.3);
  }
  // Twice as slow as at the beginning, and yet nearly all of them end in time.
  EXPECT_FALSE(Measure(10, {Round(40, 20, 2)}, {}).saturated());
  EXPECT_FALSE(Measure(10, {Round(1, 20)}, {}).saturated());
}

TEST(ServeStatsTest, MetricsHaveTheNoiseOfTheRounds) {
  const LoadLevel level = Measure(10, {Round(10, 20), Round(10, 22), Round(10, 21)}, {});
  const auto ttft = std::ranges::find(level.metrics, "ttft_ms@10", &Metric::name);
  ASSERT_NE(ttft, level.metrics.end());
  EXPECT_DOUBLE_EQ(ttft->value, 21);
  EXPECT_NEAR(ttft->noise, 2.0 / 21, 1e-9);
  const LoadLevel slower = Measure(10, {Round(10, 30), Round(10, 30), Round(10, 30)}, {});
  EXPECT_FALSE(Losses(Compare(slower.metrics, level.metrics)).empty());
  EXPECT_TRUE(Losses(Compare(level.metrics, slower.metrics)).empty());
}

TEST(ServeStatsTest, TheReportsAgree) {
  ServeRun run{.model = "<tiny>", .workload = "sharegpt", .arrivals = "poisson", .requests = 40};
  run.levels = {Measure(5, {Round(40, 20)}, run.slo), Measure(10, {Round(40, 30, 50)}, run.slo)};
  const auto json = ToJson(run);
  EXPECT_EQ(json["rates"], (std::vector<double>{5, 10}));
  EXPECT_EQ(json["levels"][0]["ttft_ms"]["median"], 20.0);
  EXPECT_EQ(json["levels"][1]["saturated"], true);
  EXPECT_THAT(ToText(run), HasSubstr("saturated"));
  const std::string html = ToHtml(run);
  EXPECT_THAT(html, HasSubstr("keeps up with is 5 requests/s"));
  EXPECT_THAT(html, HasSubstr("&lt;tiny&gt;"));
  for (const char* const raw : {"<script", "<tiny>", "http:", "https:", "nan", "inf\""}) {
    EXPECT_THAT(html, Not(HasSubstr(raw)));
  }
  size_t charts = 0;
  for (size_t at = html.find("<svg"); at != std::string::npos; at = html.find("<svg", at + 1)) {
    ++charts;
  }
  EXPECT_EQ(charts, 8u);
  run.levels.clear();
  EXPECT_THAT(ToHtml(run), HasSubstr("no data"));
}

}  // namespace
}  // namespace fathom::client
