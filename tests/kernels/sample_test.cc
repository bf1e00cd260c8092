// Sampler and log-probabilities: the vector versions equal the reference; the reference draws from
// the right distribution.
#include "kernels/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/logprob.h"
#include "tests/kernels/compare.h"

namespace fathom::kernels {
namespace {

float Pick(std::mt19937_64& random, std::initializer_list<float> values) {
  return values.begin()[random() % values.size()];
}

TEST(SampleTest, VectorsEqualTheReference) {
  std::mt19937_64 random(TestSeed());
  SampleScratch scratch;
  for (int round = 0; round < 600; ++round) {
    const size_t vocab = 1 + random() % 700;
    auto logits = MakeValues(vocab, Values::kNormal, random);
    // Some with ties, some peaked.
    const float scale = Pick(random, {0.5f, 3.0f, 20.0f});
    const bool ties = random() % 3 == 0;
    for (float& z : logits) z = ties ? std::round(z) : z * scale;
    std::vector<std::pair<int32_t, float>> bias;
    std::vector<int32_t> banned;
    std::vector<uint32_t> mask;
    if (random() % 2 == 0) mask.resize((vocab + 31) / 32);
    for (uint32_t& word : mask) {
      const uint32_t words[] = {0, ~0u, static_cast<uint32_t>(random())};
      word = words[random() % 3];
    }
    std::vector<SeenToken> seen;
    for (int32_t id = 0; id < static_cast<int32_t>(vocab); ++id) {
      if (random() % 20 == 0) bias.emplace_back(id, Pick(random, {-100, 3.5f, 100}));
      if (random() % 20 == 0) banned.push_back(id);
      if (random() % 5 == 0) seen.push_back({id, static_cast<int32_t>(random() % 4)});
    }
    const SampleArgs args{
        .logits = logits,
        .params = {.temperature = Pick(random, {0, 0.01f, 0.7f, 1, 1.5f}),
                   .top_k = static_cast<int32_t>(Pick(random, {0, 1, 5, 100, 1000})),
                   .top_p = Pick(random, {0.01f, 0.5f, 0.95f, 1, 1}),
                   .min_p = Pick(random, {0, 0, 0.05f, 1}),
                   .repetition_penalty = Pick(random, {1, 1.2f, 0.8f}),
                   .presence_penalty = Pick(random, {0, 0.5f, -1}),
                   .frequency_penalty = Pick(random, {0, 0.3f, -0.2f}),
                   .typical_p = Pick(random, {0.01f, 0.5f, 0.95f, 1, 1, 1})},
        .bias = bias,
        .banned = banned,
        .mask = mask,
        .seen = seen,
        .seed = random(),
        .sequence = static_cast<int32_t>(random() % 3),
        .position = static_cast<int32_t>(random() % 5000),
        .scratch = &scratch};
    const int32_t want = SampleRef(args);
    if (!mask.empty() && want >= 0) {
      ASSERT_EQ(mask[static_cast<size_t>(want) / 32] >> (want % 32) & 1, 1u) << "round " << round;
    }
    ForEachIsa([&] { ASSERT_EQ(SampleCpu(args), want) << "round " << round; });
    if (HasFatalFailure()) return;
  }
}

// Values at the limits of requests and beyond. No score becomes infinite or NaN, so the reference
// and the vector versions agree, a masked token is never drawn, and a token is always drawn.
TEST(SampleTest, HardValuesKeepARowWhole) {
  std::mt19937_64 random(TestSeed());
  SampleScratch scratch;
  for (int round = 0; round < 3000; ++round) {
    const size_t vocab = 2 + random() % 300;
    auto logits = MakeValues(vocab, Values::kNormal, random);
    const float scale = Pick(random, {1e-38f, 1.0f, 20.0f, 1e4f, 1e30f, 1e34f, 1e37f});
    for (float& z : logits) z *= scale;
    const bool denormals = random() % 8 == 0;
    if (denormals) {
      for (float& z : logits) z = std::copysign(1e-45f, z);
    }
    if (random() % 8 == 0) logits[0] = Pick(random, {3.4028235e38f, -3.4028235e38f});
    std::vector<std::pair<int32_t, float>> bias;
    std::vector<int32_t> banned;
    std::vector<SeenToken> seen;
    for (int32_t id = 0; id < static_cast<int32_t>(vocab); ++id) {
      if (random() % 20 == 0) bias.emplace_back(id, Pick(random, {-100, 100}));
      if (id > 0 && random() % 4 == 0) banned.push_back(id);
      if (random() % 2 == 0) {
        seen.push_back({id, static_cast<int32_t>(Pick(random, {0, 1, 40'000, 1 << 27}))});
      }
    }
    SampleArgs args{.logits = logits,
                    .params = {.temperature = Pick(
                                   random, {1e-45f, 1e-38f, 1e-20f, 9.99e-6f, 1e-5f, 1e-3f, 1, 2}),
                               .top_k = static_cast<int32_t>(Pick(random, {0, 0, 1, 7})),
                               .top_p = Pick(random, {1e-45f, 1e-38f, 0.9f, 1, 1}),
                               .min_p = Pick(random, {0, 0, 1e-45f, 0.5f}),
                               .repetition_penalty = Pick(random, {1e-45f, 1e-38f, 1e-3f, 1, 2}),
                               .presence_penalty = Pick(random, {0, 2, -2}),
                               .frequency_penalty = Pick(random, {0, 2, -2}),
                               .typical_p = Pick(random, {1e-45f, 1e-38f, 0.9f, 1, 1, 1})},
                    .bias = bias,
                    .banned = banned,
                    .seen = seen,
                    .seed = random(),
                    .position = static_cast<int32_t>(random() % 5000),
                    .scratch = &scratch};
    const int32_t want = SampleRef(args);
    ASSERT_GE(want, 0) << "round " << round;
    ASSERT_EQ(std::count(banned.begin(), banned.end(), want), 0) << "round " << round;
    ForEachIsa([&] { ASSERT_EQ(SampleCpu(args), want) << "round " << round; });
    if (HasFatalFailure()) return;
    if (args.params.temperature < 1e-5f) {
      args.params.temperature = 0;
      ASSERT_EQ(SampleRef(args), want) << "round " << round << ": a tiny temperature is not 0";
    }
  }
}

// A temperature slightly above the threshold draws the same token as a tiny one, if one token
// leads.
TEST(SampleTest, TinyTemperaturesTakeTheBest) {
  SampleScratch scratch;
  std::vector<float> logits(1000, -3.0f);
  logits[700] = 5.0f;
  logits[701] = 4.5f;
  for (const float temperature : {0.0f, 1e-45f, 1e-38f, 1e-30f, 1e-10f, 9.9e-6f, 1e-5f, 1e-3f}) {
    for (int32_t position = 0; position < 20; ++position) {
      const SampleArgs args{.logits = logits,
                            .params = {.temperature = temperature},
                            .position = position,
                            .scratch = &scratch};
      ASSERT_EQ(SampleRef(args), 700) << temperature;
      ForEachIsa([&] { ASSERT_EQ(SampleCpu(args), 700) << temperature; });
    }
  }
  // The smallest penalty of a request makes a seen token with a positive score the best one, and
  // keeps the order of several such tokens.
  const std::vector<SeenToken> seen = {{3, 1}, {700, 0}, {701, 2}};
  const SampleArgs args{.logits = logits,
                        .params = {.temperature = 0.7f, .repetition_penalty = 1e-3f},
                        .seen = seen,
                        .scratch = &scratch};
  EXPECT_EQ(SampleRef(args), 700);
}

// A GPU's table counts up to 32,767; the CPU uses the same limit.
TEST(SampleTest, CountsInTheOutputSaturate) {
  SampleScratch scratch;
  const std::vector<float> logits = {70'000, 0, 4'400};
  const auto drawn = [&](int32_t count) {
    const std::vector<SeenToken> seen = {{0, count}};
    const SampleArgs args{.logits = logits,
                          .params = {.temperature = 0, .frequency_penalty = 2},
                          .seen = seen,
                          .scratch = &scratch};
    EXPECT_EQ(SampleCpu(args), SampleRef(args));
    return SampleRef(args);
  };
  EXPECT_EQ(drawn(32'767), 0);  // 70,000 - 2 * 32,767 = 4,466.
  EXPECT_EQ(drawn(1 << 27), 0);
}

TEST(SampleTest, NothingLeftIsSaid) {
  SampleScratch scratch;
  const std::vector<float> logits = {1, 2};
  const std::vector<int32_t> banned = {0, 1};
  const SampleArgs args{.logits = logits, .banned = banned, .scratch = &scratch};
  EXPECT_EQ(SampleRef(args), -1);
  EXPECT_EQ(SampleCpu(args), -1);
}

TEST(SampleTest, GreedyTakesTheLowestOfEquals) {
  SampleScratch scratch;
  const std::vector<float> logits = {1, 5, 2, 5, 5};
  EXPECT_EQ(SampleCpu({.logits = logits, .params = {.temperature = 0}, .scratch = &scratch}), 1);
}

// The frequencies over many positions match the softmax: chi-squared with 7 degrees of freedom.
TEST(SampleTest, FollowsTheDistribution) {
  SampleScratch scratch;
  const std::vector<float> logits = {0, 0.5f, 1, -1, 2, -2, 0.1f, 1.3f};
  constexpr int kDraws = 40'000;
  std::vector<int> counts(logits.size());
  for (int i = 0; i < kDraws; ++i) {
    const SampleArgs args{.logits = logits,
                          .params = {.temperature = 0.8f},
                          .seed = 11,
                          .position = i,
                          .scratch = &scratch};
    ++counts[static_cast<size_t>(SampleCpu(args))];
  }
  double total = 0;
  for (const float z : logits) total += std::exp(double{z} / 0.8f);
  double chi_squared = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double expected = kDraws * std::exp(double{logits[i]} / 0.8f) / total;
    chi_squared += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_squared, 24.3) << "p < 0.001";
}

TEST(SampleTest, FiltersKeepWhatTheySay) {
  SampleScratch scratch;
  // Shares 0.5, 0.25, 0.125, ...
  std::vector<float> logits(8);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = -static_cast<float>(i) * std::log(2.0f);
  const auto most = [&](SampleArgs args) {
    int32_t largest = 0;
    args.logits = logits;
    args.scratch = &scratch;
    for (int32_t i = 0; i < 3000; ++i) {
      args.position = i;
      largest = std::max(largest, SampleCpu(args));
    }
    return largest;
  };
  EXPECT_EQ(most({}), 7);
  EXPECT_EQ(most({.params = {.top_k = 3}}), 2);
  EXPECT_EQ(most({.params = {.top_p = 0.7f}}), 1);
  EXPECT_EQ(most({.params = {.top_p = 0.0f}}), 0);
  EXPECT_EQ(most({.params = {.min_p = 0.2f}}), 2);
  EXPECT_EQ(most({.params = {.min_p = 1.0f}}), 0);
}

TEST(SampleTest, TypicalTokensAreNearTheEntropy) {
  SampleScratch scratch;
  const auto drawn = [&](const std::vector<float>& logits, SamplerParams params) {
    std::set<int32_t> ids;
    for (int32_t i = 0; i < 3000; ++i) {
      const SampleArgs args{.logits = logits, .params = params, .position = i, .scratch = &scratch};
      ids.insert(SampleRef(args));
      ForEachIsa([&] { EXPECT_EQ(SampleCpu(args), SampleRef(args)); });
    }
    return ids;
  };
  using Ids = std::set<int32_t>;
  // Shares 1/2, 1/4, 1/8, ...: -log2 p is 1, 2, 3, ..., and the entropy is close to 2.
  std::vector<float> halves(8);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = -static_cast<float>(i) * std::log(2.0f);
  EXPECT_EQ(drawn(halves, {.typical_p = 1e-45f}), Ids({1}));
  EXPECT_EQ(drawn(halves, {.typical_p = 0.2f}), Ids({1}));
  EXPECT_EQ(drawn(halves, {.typical_p = 0.3f}), Ids({0, 1}));
  EXPECT_EQ(drawn(halves, {.typical_p = 0.8f}), Ids({0, 1, 2}));
  // Of what the other filters keep: shares 4/7, 2/7, 1/7, and the entropy is close to 1.4.
  EXPECT_EQ(drawn(halves, {.top_k = 3, .typical_p = 0.2f}), Ids({1}));
  EXPECT_EQ(drawn(halves, {.min_p = 0.4f, .typical_p = 0.2f}), Ids({0}));  // 2/3, 1/3; 0.9.
  // Tokens at equal distances are kept together.
  EXPECT_EQ(drawn({2, 2, 2, 2, 2}, {.typical_p = 0.01f}), Ids({0, 1, 2, 3, 4}));
}

TEST(LogprobTest, VectorsEqualTheReferenceAndAreTrue) {
  std::mt19937_64 random(TestSeed());
  for (const size_t vocab : {1, 17, 512, 513, 4096, 6000, 32001}) {
    for (const int32_t slices : {1, 2, 4}) {
      auto logits = MakeValues(vocab, Values::kNormal, random);
      for (float& z : logits) z = std::round(z * 40) / 8;  // With ties.
      const size_t top = std::min<size_t>(20, vocab);
      std::vector<int32_t> want_ids(top), ids(top);
      std::vector<float> want_top(top), got_top(top);
      const auto id = static_cast<int32_t>(random() % vocab);
      const float want = LogprobRef({logits, slices, id, want_ids, want_top});
      double sum = 0;
      for (const float z : logits) sum += std::exp(double{z});
      EXPECT_NEAR(want, logits[static_cast<size_t>(id)] - std::log(sum), 1e-4);
      ForEachIsa([&] {
        EXPECT_EQ(LogprobCpu({logits, slices, id, ids, got_top}), want);
        EXPECT_EQ(ids, want_ids);
        EXPECT_EQ(got_top, want_top);
      });
    }
  }
}

}  // namespace
}  // namespace fathom::kernels
