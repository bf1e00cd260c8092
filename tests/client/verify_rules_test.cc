#include "client/verify_rules.h"

#include <gtest/gtest.h>

namespace fathom::client {
namespace {

Golden Recorded() {
  Golden golden;
  golden.name = "g";
  golden.conversation.emplace();
  golden.rendered = "<u>Hi<a>";
  golden.prompt_ids = {0, 3, 9};
  golden.output_ids = {5, 6, 1};
  golden.text = "Hey";
  golden.logprobs = {-0.1, -0.2, -0.3};
  golden.top = {{{5, 7}, {-0.1, -3.0}}, {{6, 8}, {-0.2, -0.2005}}, {{1, 2}, {-0.3, -4.0}}};
  golden.prompt_logprobs = {0, -1.0, -2.0};
  return golden;
}

// An answer that is exactly the recorded one.
Replay Same(const Golden& golden) {
  Replay replay;
  replay.tokenized = TokenizeResult{golden.prompt_ids, golden.rendered};
  replay.decoded = golden.text;
  SequenceResult result;
  result.ids = golden.output_ids;
  for (size_t i = 0; i < golden.output_ids.size(); ++i) {
    TokenLogprob one{.id = golden.output_ids[i], .logprob = static_cast<float>(golden.logprobs[i])};
    one.top_ids = golden.top[i].ids;
    one.top_logprobs.assign(golden.top[i].logprobs.begin(), golden.top[i].logprobs.end());
    result.logprobs.push_back(one);
  }
  replay.answer.sequences.push_back(result);
  replay.answer.prompt_logprobs = PromptLogprobs{.start = 1};
  for (size_t i = 1; i < golden.prompt_logprobs.size(); ++i) {
    replay.answer.prompt_logprobs->logprobs.push_back(
        {.id = golden.prompt_ids[i], .logprob = static_cast<float>(golden.prompt_logprobs[i])});
  }
  return replay;
}

TEST(VerifyRulesTest, TheSameIsExact) {
  const Golden golden = Recorded();
  const Comparison comparison = CompareCpu(golden, Same(golden));
  EXPECT_TRUE(comparison.differences.empty()) << comparison.differences[0];
  EXPECT_LT(comparison.logprob_difference_max, 1e-6);
}

TEST(VerifyRulesTest, EachPartCounts) {
  const Golden golden = Recorded();
  const auto differs = [&](auto change) {
    Replay replay = Same(golden);
    change(replay);
    return CompareCpu(golden, replay).differences.size() == 1;
  };
  EXPECT_TRUE(differs([](Replay& r) { r.tokenized->rendered = "<u>Hi<b>"; }));
  EXPECT_TRUE(differs([](Replay& r) { r.tokenized->ids[1] = 4; }));
  EXPECT_TRUE(differs([](Replay& r) { r.tokenized->ids.push_back(4); }));
  EXPECT_TRUE(differs([](Replay& r) { r.decoded = "He"; }));
  EXPECT_TRUE(differs([](Replay& r) { r.answer.sequences[0].ids[2] = 2; }));
  EXPECT_TRUE(differs([](Replay& r) { r.answer.sequences[0].ids.pop_back(); }));
  EXPECT_TRUE(differs([](Replay& r) { r.answer.sequences[0].logprobs[1].logprob += 2.1e-3f; }));
  EXPECT_TRUE(differs([](Replay& r) { r.answer.sequences[0].logprobs.pop_back(); }));
  EXPECT_TRUE(differs([](Replay& r) { r.answer.sequences[0].logprobs[0].top_ids[1] = 9; }) == false)
      << "an unlisted token exactly as likely as the last listed one cannot be told from it";
  EXPECT_TRUE(differs([](Replay& r) { r.answer.sequences[0].logprobs[0].top_ids[0] = 9; }));
  EXPECT_TRUE(
      differs([](Replay& r) { r.answer.sequences[0].logprobs[0].top_logprobs[1] = -2.9f; }));
  EXPECT_TRUE(differs([](Replay& r) { r.answer.sequences[0].logprobs[0].top_ids.pop_back(); }));
  EXPECT_TRUE(differs([](Replay& r) { r.answer.prompt_logprobs->logprobs[1].logprob = -2.1f; }));
  EXPECT_TRUE(differs([](Replay& r) { r.answer.prompt_logprobs.reset(); }));
}

TEST(VerifyRulesTest, WithinTheToleranceIsExactAndReported) {
  const Golden golden = Recorded();
  Replay replay = Same(golden);
  replay.answer.sequences[0].logprobs[1].logprob += 1.9e-3f;
  const Comparison comparison = CompareCpu(golden, replay);
  EXPECT_TRUE(comparison.differences.empty());
  EXPECT_NEAR(comparison.logprob_difference_max, 1.9e-3, 1e-6);
}

TEST(VerifyRulesTest, NeighboursTooCloseToTellMaySwap) {
  const Golden golden = Recorded();
  Replay replay = Same(golden);
  std::swap(replay.answer.sequences[0].logprobs[1].top_ids[0],
            replay.answer.sequences[0].logprobs[1].top_ids[1]);
  EXPECT_TRUE(CompareCpu(golden, replay).differences.empty());
}

TEST(VerifyRulesTest, PlainTextIsComparedAsStreamed) {
  Golden golden = Recorded();
  golden.conversation.reset();
  Replay replay = Same(golden);
  replay.answer.sequences[0].text = "Hey";
  EXPECT_TRUE(CompareCpu(golden, replay).differences.empty());
  replay.answer.sequences[0].text = "He";
  EXPECT_EQ(CompareCpu(golden, replay).differences.size(), 1u);
}

TEST(VerifyRulesTest, RequestOfAGolden) {
  Golden golden = Recorded();
  const std::vector<TokenId> end = {1};
  RequestOptions options = ReplayOptions(golden, end);
  EXPECT_EQ(options.stop.max_tokens, 3 + 8);  // It ended by itself, and must again.
  EXPECT_FALSE(options.stop.ignore_eos);
  EXPECT_EQ(options.sampling.temperature, 0.0f);
  EXPECT_EQ(options.output.logprobs, 2);
  EXPECT_EQ(options.output.prompt_logprobs, 0);

  golden.output_ids.back() = 4;
  EXPECT_EQ(ReplayOptions(golden, end).stop.max_tokens, 3);

  golden.output_ids.back() = 1;
  golden.fixture = true;
  golden.top.clear();
  golden.prompt_logprobs.clear();
  options = ReplayOptions(golden, end);
  EXPECT_EQ(options.stop.max_tokens, 3);
  EXPECT_TRUE(options.stop.ignore_eos);
  EXPECT_EQ(options.output.logprobs, 0);
  EXPECT_FALSE(options.output.prompt_logprobs.has_value());
}

}  // namespace
}  // namespace fathom::client
