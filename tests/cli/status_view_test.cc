// The screen of `fathom status --watch`: rates of two readings, the queue's reasons, losses, and
// lines that fit the terminal.
#include "cli/status/status_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/status/metrics_text.h"

namespace fathom::client {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

constexpr char kPage[] =
    "# HELP fathom_scheduler_generation_tokens_total tokens\n"
    "# TYPE fathom_scheduler_generation_tokens_total counter\n"
    "fathom_scheduler_generation_tokens_total 120\n"
    "fathom_scheduler_generation_tokens_total_other 7\n"
    "fathom_scheduler_requests_waiting_by_reason{reason=\"slots\"} 3\n"
    "fathom_scheduler_requests_waiting_by_reason{reason=\"blocks\"} 0\n"
    "a_metric{text=\"} 5\",reason=\"x\"} 1.5e3\n";

TEST(MetricsTextTest, ReadsValuesAndLabels) {
  EXPECT_EQ(MetricOf(kPage, "fathom_scheduler_generation_tokens_total"), 120);
  EXPECT_EQ(MetricOf(kPage, "fathom_scheduler_requests_waiting_by_reason"), 3);
  EXPECT_EQ(MetricOf(kPage, "a_metric"), 1500);
  EXPECT_EQ(MetricOf(kPage, "fathom_scheduler"), std::nullopt);
  EXPECT_EQ(MetricByLabel(kPage, "fathom_scheduler_requests_waiting_by_reason", "reason"),
            (std::map<std::string, double>{{"slots", 3}, {"blocks", 0}}));
  EXPECT_EQ(MetricOf("", "a_metric"), std::nullopt);
}

ClusterReading Reading(TimeUs at_us, double tokens, uint64_t step) {
  ClusterReading reading{.at_us = at_us};
  ClusterStatus status{.ready = true,
                       .model = "tiny",
                       .groups = 1,
                       .requests_waiting = 4,
                       .blocks_total = 100,
                       .blocks_used = 50};
  status.ranks = {{.rank = 0, .host = "a", .step = step, .layer = 3, .doing = "attention"},
                  {.rank = 1, .host = "b", .step = step, .doing = "waits\x1b[2J"}};
  reading.status = status;
  reading.generated_tokens = tokens;
  return reading;
}

TEST(StatusViewTest, RatesComeFromTwoReadings) {
  const Rates rates = RatesOf(Reading(1'000'000, 100, 10), Reading(3'000'000, 400, 30));
  EXPECT_EQ(rates.generated_per_s, 150);
  EXPECT_EQ(rates.steps_per_s, 10);
  EXPECT_EQ(rates.prompt_per_s, std::nullopt);
  // The scheduler restarted: its counters begin again.
  EXPECT_EQ(RatesOf(Reading(1'000'000, 400, 30), Reading(3'000'000, 10, 1)).generated_per_s,
            std::nullopt);
}

TEST(StatusViewTest, ShowsTheQueueTheRanksAndTheLosses) {
  ClusterReading now = Reading(2'000'000, 200, 12);
  now.waiting_by_reason = {{"blocks", 3}, {"slots", 1}, {"other", 0}};
  const ClusterReading before = Reading(1'000'000, 100, 10);
  LossList losses;
  losses.See("rank 1: killed", "10:00:00");
  losses.See("rank 1: killed", "10:00:01");
  losses.See("", "10:00:02");
  losses.See("rank 0: killed", "10:00:03");
  EXPECT_EQ(losses.losses().size(), 2);
  const auto lines = StatusLines(now, &before, losses, 200, 50);
  EXPECT_EQ(lines[0], "ready");
  EXPECT_THAT(lines, Contains(HasSubstr("4 waiting (3 for blocks, 1 for slots)")));
  EXPECT_THAT(lines, Contains(HasSubstr("[###############...............] 50 of 100 used")));
  EXPECT_THAT(lines,
              Contains(HasSubstr("100.0 tokens/s generated, - prompt tokens/s, 2.0 steps/s")));
  EXPECT_THAT(lines, Contains(HasSubstr("attention")));
  EXPECT_THAT(lines, Contains(HasSubstr("10:00:03  rank 0: killed")));
  for (const std::string& line : lines) EXPECT_EQ(line.find('\x1b'), std::string::npos) << line;
}

TEST(StatusViewTest, LinesFitTheTerminal) {
  ClusterReading now = Reading(2'000'000, 200, 12);
  now.status->model = "\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4";  // Characters of two bytes.
  const auto lines = StatusLines(now, nullptr, {}, 13, 6);
  ASSERT_EQ(lines.size(), 6);
  for (const std::string& line : lines) EXPECT_LE(line.size(), 13);
  EXPECT_EQ(lines[1], "model     \xC3\xA4");  // Not a half character.
  EXPECT_THAT(lines[5], HasSubstr("... "));
  ClusterReading gone;
  gone.error = "nothing listens";
  EXPECT_THAT(StatusLines(gone, nullptr, {}, 80, 24), Contains("no answer: nothing listens"));
}

}  // namespace
}  // namespace fathom::client
