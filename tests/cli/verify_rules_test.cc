#include "cli/verify/verify_rules.h"

#include <gtest/gtest.h>

#include <cmath>

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

// An answer that equals the recorded one.
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
  EXPECT_TRUE(comparison.ids_equal);
  EXPECT_LT(comparison.outputs.max, 1e-6);
  EXPECT_EQ(comparison.outputs.count, 3);
  EXPECT_EQ(comparison.prompts.count, 2);
  EXPECT_EQ(comparison.alternatives.count, 6);
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
  EXPECT_NEAR(comparison.outputs.max, 1.9e-3, 1e-6);
  EXPECT_NEAR(comparison.outputs.mean(), 1.9e-3 / 3, 1e-6);
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

// The answer of a CUDA cluster that computes exactly like the recorder. Position 1 is a near tie.
Replay SameScored(const Golden& golden) {
  Replay replay = Same(golden);
  replay.scored = PromptLogprobs{.start = 1};
  std::vector<TokenLogprob>& scored = replay.scored->logprobs;
  scored = replay.answer.prompt_logprobs->logprobs;
  for (TokenLogprob& one : scored) {
    one.top_ids = {77};
    one.top_logprobs = {-0.5f};
  }
  for (const TokenLogprob& one : replay.answer.sequences[0].logprobs) {
    scored.push_back(one);
    scored.back().top_ids.resize(1);
    scored.back().top_logprobs.resize(1);
  }
  return replay;
}

Golden RecordedWithGaps() {
  Golden golden = Recorded();
  golden.gaps = {2.9, 0.0005, 3.7};
  return golden;
}

TEST(VerifyRulesTest, CudaTheSameIsByTheRule) {
  const Golden golden = RecordedWithGaps();
  const Comparison comparison = CompareCuda(golden, SameScored(golden));
  EXPECT_TRUE(comparison.differences.empty()) << comparison.differences[0];
  EXPECT_TRUE(comparison.ids_equal);
  EXPECT_EQ(comparison.outputs.count, 3);
  EXPECT_EQ(comparison.prompts.count, 2);
  EXPECT_LT(comparison.outputs.max, 1e-6);
  EXPECT_LT(comparison.prompts.max, 1e-6);
}

TEST(VerifyRulesTest, CudaFreeRunEqualsUpToTheFirstNearTie) {
  const Golden golden = RecordedWithGaps();
  const auto differences = [](const Golden& recorded, std::vector<TokenId> ids) {
    Replay replay = SameScored(recorded);
    replay.answer.sequences[0].ids = std::move(ids);
    const Comparison comparison = CompareCuda(recorded, replay);
    EXPECT_FALSE(comparison.ids_equal);
    return comparison.differences.size();
  };
  EXPECT_EQ(differences(golden, {5, 8, 3, 3}), 0u);
  EXPECT_EQ(differences(golden, {5, 8}), 0u);
  EXPECT_EQ(differences(golden, {4, 6, 1}), 1u);  // Before the tie.
  EXPECT_EQ(differences(golden, {5}), 1u);        // It must continue to the near tie.
  EXPECT_EQ(differences(golden, {}), 1u);

  Golden clear = golden;
  clear.gaps[1] = 0.16;
  EXPECT_EQ(differences(clear, {5, 8, 1}), 1u);
  EXPECT_EQ(differences(clear, {5, 6, 1, 1}), 1u);  // The end is a token too.
  clear.gaps.clear();
  EXPECT_EQ(differences(clear, {5, 8, 1}), 1u);
}

TEST(VerifyRulesTest, CudaBestTokenIsTheRecordedOneBeyondTheGap) {
  const auto differences = [](const Golden& recorded, size_t position) {
    Replay replay = SameScored(recorded);
    replay.scored->logprobs[recorded.prompt_ids.size() - 1 + position].top_ids[0] = 99;
    return CompareCuda(recorded, replay).differences.size();
  };
  Golden golden = RecordedWithGaps();
  EXPECT_EQ(differences(golden, 0), 1u);
  EXPECT_EQ(differences(golden, 1), 0u);
  EXPECT_EQ(differences(golden, 2), 1u);  // Also after a near tie.
  golden.gaps.clear();
  EXPECT_EQ(differences(golden, 1), 1u);
}

TEST(VerifyRulesTest, CudaEachPartCounts) {
  const Golden golden = RecordedWithGaps();
  const auto differs = [&](auto change) {
    Replay replay = SameScored(golden);
    change(replay);
    return CompareCuda(golden, replay).differences.size() == 1;
  };
  EXPECT_TRUE(differs([](Replay& r) { r.tokenized->rendered = "<u>Hi<b>"; }));
  EXPECT_TRUE(differs([](Replay& r) { r.tokenized->ids[1] = 4; }));
  EXPECT_TRUE(differs([](Replay& r) { r.decoded = "He"; }));
  EXPECT_TRUE(differs([](Replay& r) { r.scored.reset(); }));
  EXPECT_TRUE(differs([](Replay& r) { r.scored->start = 2; }));
  EXPECT_TRUE(differs([](Replay& r) { r.scored->logprobs.pop_back(); }));
  EXPECT_TRUE(differs([](Replay& r) { r.scored->logprobs[2].top_ids.clear(); }));
  EXPECT_TRUE(differs([](Replay& r) { r.scored->logprobs[3].logprob += 0.26f; }));
  EXPECT_TRUE(differs([](Replay& r) { r.scored->logprobs[3].logprob = std::nanf(""); }));
  EXPECT_FALSE(differs([](Replay& r) { r.scored->logprobs[3].logprob -= 0.24f; }));
  EXPECT_FALSE(differs([](Replay& r) { r.scored->logprobs[0].logprob += 0.26f; }))
      << "single log-probabilities of prompts are bounded by their mean alone";
}

TEST(VerifyRulesTest, CudaAMeanBeyondItsBoundFailsThoughEachIsWithin) {
  const Golden golden = RecordedWithGaps();
  const auto broken = [&](float outputs_by, float prompts_by) {
    Replay replay = SameScored(golden);
    for (size_t i = 0; i < replay.scored->logprobs.size(); ++i) {
      replay.scored->logprobs[i].logprob +=
          (i % 2 == 0 ? 1.0f : -1.0f) * (i < 2 ? prompts_by : outputs_by);
    }
    const Comparison comparison = CompareCuda(golden, replay);
    EXPECT_TRUE(comparison.differences.empty()) << comparison.differences[0];
    return CheckMeansCuda(comparison.outputs, comparison.prompts).size();
  };
  EXPECT_EQ(broken(0.029f, 0.079f), 0u);
  EXPECT_EQ(broken(0.031f, 0.079f), 1u);
  EXPECT_EQ(broken(0.029f, 0.081f), 1u);
  EXPECT_EQ(broken(0.2f, 0.2f), 2u);
  EXPECT_TRUE(CheckMeansCuda({}, {}).empty());  // Nothing recorded.
}

TEST(VerifyRulesTest, CudaMeanIsOverTheFile) {
  Distances file;
  file.Add(0.2);
  for (int i = 0; i < 9; ++i) file.Add(0.01);
  EXPECT_DOUBLE_EQ(file.max, 0.2);
  EXPECT_TRUE(CheckMeansCuda(file, {}).empty());
  Distances other;
  other.Add(0.05);
  EXPECT_EQ(CheckMeansCuda(other, {}).size(), 1u);
  file.Add(other);
  EXPECT_EQ(file.count, 11);
  EXPECT_NEAR(file.mean(), 0.34 / 11, 1e-12);
}

TEST(VerifyRulesTest, RuleOfWhatTheClusterComputesOn) {
  const auto rule = [](const char* device, const char* dtype) {
    Model model;
    model.device = device;
    model.dtype = dtype;
    return RuleFor(model);
  };
  EXPECT_EQ(rule("cuda-sm90", "bfloat16"), VerifyRule::kCuda);
  EXPECT_EQ(rule("cuda-sm90", "float16"), VerifyRule::kCuda);
  EXPECT_EQ(rule("cuda-sm90", "float32"), VerifyRule::kCpu);
  EXPECT_EQ(rule("cpu", "float32"), VerifyRule::kCpu);
  EXPECT_EQ(rule("", ""), VerifyRule::kCpu);
}

TEST(VerifyRulesTest, ScoreRequestFeedsPromptAndOutputs) {
  const GenerateRequest request = ScoreRequest(Recorded());
  EXPECT_EQ(std::get<std::vector<TokenId>>(request.prompt),
            (std::vector<TokenId>{0, 3, 9, 5, 6, 1}));
  EXPECT_EQ(request.stop.max_tokens, 1);
  EXPECT_TRUE(request.stop.ignore_eos);
  EXPECT_EQ(request.output.prompt_logprobs, 1);
}

TEST(VerifyRulesTest, RequestOfAGolden) {
  Golden golden = Recorded();
  const std::vector<TokenId> end = {1};
  RequestOptions options = ReplayOptions(golden, end);
  // The recorded answer ended by itself, so this one must too.
  EXPECT_EQ(options.stop.max_tokens, 3 + 8);
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
