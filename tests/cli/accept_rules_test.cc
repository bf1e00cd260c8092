// What `fathom accept` makes of what it saw: each check fails for its own reason, and the report
// says so.
#include "cli/accept/accept_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace fathom::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Ten requests with a first token after 10 ms and gaps of 2 ms.
AcceptRun GoodRun() {
  AcceptRun run{.server = "127.0.0.1:8001", .when = "now"};
  run.before = {
      .ready = true, .model = "tiny", .build = "0.2.0+abcdef1234", .term = 3, .groups = 1};
  run.before.ranks = {{.rank = 0, .host = "a"}};
  run.after = run.before;
  run.model = {.name = "tiny", .device = "cpu", .dtype = "float32"};
  run.processes = {
      {.address = "h:8000", .role = "router", .version = "0.2.0", .commit = "abcdef1234"},
      {.address = "h:8002", .role = "scheduler", .version = "0.2.0", .commit = "abcdef1234567890"}};
  run.input_len = 16;
  run.output_len = 4;
  for (int i = 0; i < 10; ++i) {
    const TimeUs sent_us = i * 100'000;
    RequestTrace trace{.sent_us = sent_us, .end_us = sent_us + 17'000, .prompt_tokens = 16};
    for (int k = 0; k < 4; ++k) trace.frames.push_back({sent_us + 10'000 + k * 2'000, 1});
    run.traces.push_back(std::move(trace));
  }
  run.wall_us = 1'000'000;
  run.equalities = {{.name = "greedy: twice", .answers = 4}};
  run.stress = {.requests = 8,
                .finished = 7,
                .cancelled = 1,
                .tokens = 70,
                .tokens_expected = 70,
                .blocks_before = 0,
                .blocks_after = 0};
  return run;
}

const LatencyLimits kLoose{.step_floor_ms = 1, .first_floor_ms = 5, .source = "test"};

std::vector<std::string> FailedChecks(const AcceptRun& run, const LatencyLimits& limits) {
  std::vector<std::string> names;
  for (const AcceptCheck& check : Judge(run, limits)) {
    if (check.outcome == Outcome::kFailed) names.push_back(check.name);
  }
  EXPECT_EQ(names.empty(), Passed(Judge(run, limits)));
  return names;
}

using Names = std::vector<std::string>;

TEST(AcceptRulesTest, AGoodRunIsAccepted) { EXPECT_EQ(FailedChecks(GoodRun(), kLoose), Names{}); }

TEST(AcceptRulesTest, LatencyIsJudgedByTheFloor) {
  LatencyLimits limits = kLoose;
  limits.step_floor_ms = 0.5;  // 2 ms is more than 2.5 times that, and less than 5 times.
  EXPECT_EQ(FailedChecks(GoodRun(), limits), (Names{"gap, median"}));
  limits.step_floor_ms = 1;
  limits.first_floor_ms = 1;
  EXPECT_EQ(FailedChecks(GoodRun(), limits), (Names{"first token, median", "first token, p99"}));
  AcceptRun slow = GoodRun();  // One request stood still for a second.
  slow.traces[9].frames[3].at_us += 1'000'000;
  EXPECT_EQ(FailedChecks(slow, kLoose), (Names{"gap, p99"}));
  // Without a floor nothing is judged, and the report says so.
  const auto checks = Judge(slow, {});
  EXPECT_TRUE(Passed(checks));
  EXPECT_THAT(ToText({slow, {}, checks}), HasSubstr("skipped  gap, p99"));
}

TEST(AcceptRulesTest, VersionsMustBeEqual) {
  AcceptRun run = GoodRun();
  run.processes[1].commit = "bbbbbb";
  EXPECT_EQ(FailedChecks(run, kLoose), Names{"versions"});
  run = GoodRun();
  run.processes[1] = {.address = "h:8002", .error = "does not answer"};
  EXPECT_EQ(FailedChecks(run, kLoose), Names{});  // It was only a guess.
  run.processes[1].required = true;
  EXPECT_EQ(FailedChecks(run, kLoose), Names{"versions"});
  run.processes.clear();
  EXPECT_EQ(Judge(run, kLoose)[0].outcome, Outcome::kSkipped);
}

TEST(AcceptRulesTest, EachOtherFault) {
  AcceptRun run = GoodRun();
  run.before.waiting = "a worker waits";
  EXPECT_EQ(FailedChecks(run, kLoose), Names{"groups"});
  run = GoodRun();
  run.latency_error = "refused";
  EXPECT_EQ(FailedChecks(run, kLoose), Names{"first requests"});
  run = GoodRun();
  run.equalities[0].difference = "request 2: token 7 differs";
  EXPECT_EQ(FailedChecks(run, kLoose), Names{"greedy: twice"});
  run = GoodRun();
  run.stress.tokens = 69;
  EXPECT_EQ(FailedChecks(run, kLoose), Names{"stress"});
  run = GoodRun();
  run.stress.finished = 6;
  EXPECT_EQ(FailedChecks(run, kLoose), Names{"stress"});
  run = GoodRun();
  run.stress.blocks_after = 3;
  EXPECT_EQ(FailedChecks(run, kLoose), Names{"blocks"});
  run.stress.blocks_before.reset();
  EXPECT_EQ(FailedChecks(run, kLoose), Names{});
  run = GoodRun();
  run.after.term = 4;
  EXPECT_EQ(FailedChecks(run, kLoose), Names{"stability"});
  run = GoodRun();
  run.after.last_loss = "rank 0";
  EXPECT_EQ(FailedChecks(run, kLoose), Names{"stability"});
}

TEST(AcceptRulesTest, ReportsAgree) {
  AcceptReport report{GoodRun(), kLoose};
  report.run.model.name = "<script>";
  report.run.stress.blocks_after = 3;
  report.checks = Judge(report.run, report.limits);
  const auto json = ToJson(report);
  EXPECT_EQ(json["accepted"], false);
  EXPECT_EQ(json["latency"]["requests"], 10);
  EXPECT_EQ(json["latency"]["first_token_ms"]["median"], 10.0);
  EXPECT_EQ(json["latency"]["gap_ms"]["p99"], 2.0);
  EXPECT_THAT(ToText(report), HasSubstr("refused: "));
  const std::string html = ToHtml(report);
  EXPECT_THAT(html, HasSubstr("refused: "));
  EXPECT_THAT(html, HasSubstr("<polyline"));
  EXPECT_THAT(html, Not(HasSubstr("<script")));
}

}  // namespace
}  // namespace fathom::client
