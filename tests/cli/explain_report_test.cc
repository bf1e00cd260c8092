#include "cli/explain_report.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

namespace fathom::client {
namespace {

using testing::HasSubstr;
using testing::Not;

Explanation Waited() {
  Explanation from;
  from.request_id = "r-1";
  from.outcome = "LENGTH";
  from.phase = "ended";
  from.whole_us = 1'000'000;
  from.parts = {{"transport", 100'000}, {"earlier", 0},   {"queue", 500'000}, {"prefill", 100'000},
                {"decode", 200'000},    {"suspended", 0}, {"replay", 100'000}};
  from.scheduler_known = true;
  from.queue_behind = {{"slots", 450'000}, {"blocks", 0}, {"no_group", 0}, {"other", 50'000}};
  from.stays = {{1, 2, 500'000, 40'000, "preempted"}, {1, 2, 640'000, 360'000, "finished"}};
  from.stays_total = 2;
  from.suspensions = from.preemptions = 1;
  from.chunks = {{500'000, 40'000, 512, 1}};
  from.chunks_total = 1;
  from.gaps = {{60'000, 7}};
  from.submits = 1;
  from.usage = {512, 20, 0};
  from.max_tokens = 20;
  from.ended_ago_us = 3'000'000;
  return from;
}

TEST(ExplainReport, TheBarHasTheSharesOfTheParts) {
  const std::string text = ExplainText(Waited());
  const size_t begin = text.find('[') + 1;
  const std::string bar = text.substr(begin, text.find(']') - begin);
  EXPECT_EQ(bar, std::string(30, 'q') + std::string(6, 'p') + std::string(6, 'r') +
                     std::string(12, 'd') + std::string(6, 't'));
}

TEST(ExplainReport, TheTextNamesLimitsStaysAndGaps) {
  const std::string text = ExplainText(Waited());
  EXPECT_THAT(text, HasSubstr("request r-1: LENGTH, ended 3000 ms ago"));
  EXPECT_THAT(text, HasSubstr("450 ms  behind slots: all were taken (--max-num-seqs)"));
  EXPECT_THAT(text, Not(HasSubstr("behind blocks")));
  EXPECT_THAT(text, HasSubstr("group 1 epoch 2  preempted: no KV block was free"));
  EXPECT_THAT(text, HasSubstr("512 tokens"));
  EXPECT_THAT(text, HasSubstr("60.0 ms before token 7"));
  EXPECT_THAT(text, HasSubstr("50.0 %"));
}

TEST(ExplainReport, AnEmptyWholeAndAnErrorHaveNoBar) {
  Explanation from;
  from.request_id = "r-2";
  from.outcome = "INVALID_ARGUMENT";
  from.reason = "OUT_OF_RANGE";
  from.message = "top_p is 7";
  const std::string text = ExplainText(from);
  EXPECT_THAT(text, HasSubstr("OUT_OF_RANGE: top_p is 7"));
  EXPECT_THAT(text, HasSubstr("it did not get to a scheduler"));
  EXPECT_THAT(text, Not(HasSubstr("[")));
}

TEST(ExplainReport, JsonHasTheSameNumbers) {
  const auto json = nlohmann::json::parse(ExplainJson(Waited()));
  int64_t sum = 0;
  for (const auto& [name, us] : json["parts_us"].items()) sum += us.get<int64_t>();
  EXPECT_EQ(sum, json["whole_us"].get<int64_t>());
  EXPECT_EQ(json["queue_behind_us"]["slots"], 450'000);
  EXPECT_EQ(json["stays"][0]["end"], "preempted");
  EXPECT_FALSE(json.contains("first_token_us"));
}

}  // namespace
}  // namespace fathom::client
