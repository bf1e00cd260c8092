#include "cli/verify/cached_rules.h"

#include <gtest/gtest.h>

#include <cmath>

namespace fathom::client {
namespace {

Model SmallModel(int32_t context) {
  Model model;
  model.context_tokens = context;
  model.vocab = 50;
  return model;
}

Answer AnswerOf(std::vector<TokenId> ids) {
  Answer answer;
  answer.started.fingerprint = "print";
  SequenceResult& sequence = answer.sequences.emplace_back();
  for (const TokenId id : ids) {
    sequence.logprobs.push_back(
        {.id = id, .logprob = -0.5f, .top_ids = {id, 1}, .top_logprobs = {-0.5f, -1.0f}});
  }
  sequence.ids = std::move(ids);
  return answer;
}

TEST(CachedRules, TheCasesFitTheModelAndRepeat) {
  const auto cases = MakeCachedCases(SmallModel(256), 20, 3);
  ASSERT_TRUE(cases.ok()) << ToString(cases.status());
  ASSERT_EQ(cases->size(), 20u);
  const auto again = MakeCachedCases(SmallModel(256), 20, 3);
  const auto other = MakeCachedCases(SmallModel(256), 20, 4);
  EXPECT_EQ((*cases)[7].first.prompt, (*again)[7].first.prompt);
  EXPECT_NE((*cases)[7].first.prompt, (*other)[7].first.prompt);
  for (const CachedCase& one : *cases) {
    const GenerateRequest next = NextTurn(
        one, AnswerOf(std::vector<TokenId>(static_cast<size_t>(*one.first.stop.max_tokens))));
    const auto& prompt = std::get<std::vector<TokenId>>(next.prompt);
    EXPECT_GT(std::get<std::vector<TokenId>>(one.first.prompt).size(), 64u);
    EXPECT_LE(static_cast<int32_t>(prompt.size()) + *next.stop.max_tokens, 256);
    for (const TokenId id : prompt) EXPECT_TRUE(id >= 0 && id < 50);
  }
  EXPECT_FALSE(MakeCachedCases(SmallModel(150), 1, 1).ok());
  Model small_pool = SmallModel(4096);
  small_pool.pool_tokens = 150;
  EXPECT_FALSE(MakeCachedCases(small_pool, 1, 1).ok());
}

TEST(CachedRules, TheNextTurnIsPromptAnswerAndMore) {
  CachedCase one;
  one.first.prompt = std::vector<TokenId>{1, 2};
  one.more = {7, 8};
  const GenerateRequest next = NextTurn(one, AnswerOf({4, 5, 6}));
  EXPECT_EQ(std::get<std::vector<TokenId>>(next.prompt),
            (std::vector<TokenId>{1, 2, 4, 5, 6, 7, 8}));
}

TEST(CachedRules, EachBitCounts) {
  const Answer want = AnswerOf({4, 5, 6});
  EXPECT_EQ(DifferenceOf(AnswerOf({4, 5, 6}), want), "");
  const auto differs = [&](auto change) {
    Answer got = AnswerOf({4, 5, 6});
    change(got);
    return DifferenceOf(got, want);
  };
  EXPECT_EQ(differs([](Answer& a) { a.sequences[0].ids[1] = 9; }), "token 1 is 9, not 5");
  EXPECT_NE(differs([](Answer& a) { a.sequences[0].ids.pop_back(); }), "");
  EXPECT_NE(differs([](Answer& a) { a.started.fingerprint = "other"; }), "");
  EXPECT_NE(differs([](Answer& a) { a.sequences[0].logprobs.clear(); }), "");
  EXPECT_NE(differs([](Answer& a) { a.sequences[0].logprobs[2].top_ids[1] = 2; }), "");
  EXPECT_NE(differs([](Answer& a) {
              float& value = a.sequences[0].logprobs[2].logprob;
              value = std::nextafter(value, 0.0f);
            }),
            "");
  EXPECT_NE(differs([](Answer& a) {
              float& value = a.sequences[0].logprobs[0].top_logprobs[1];
              value = std::nextafter(value, 0.0f);
            }),
            "");
}

}  // namespace
}  // namespace fathom::client
