// canon.h against libm in double: an error bound for each formula; and the published vectors of
// Philox.
#include "kernels/canon.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace fathom::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The distance of `got` from `want` in units of the last place of `want` (of the smallest denormal
// below it).
double Ulps(float got, double want) {
  const float rounded = static_cast<float>(want);
  if (got == rounded) return 0;
  const double ulp = std::max(
      std::ldexp(1.0, std::ilogb(static_cast<double>(std::max(std::fabs(rounded), 1e-44f))) - 23),
      0x1p-149);
  return std::fabs(static_cast<double>(got) - want) / ulp;
}

// The largest error of `f` over `count` floats evenly spaced in [low, high].
template <class F, class Oracle>
double WorstUlps(F f, Oracle oracle, double low, double high, int count) {
  double worst = 0;
  for (int i = 0; i <= count; ++i) {
    const float x = static_cast<float>(low + (high - low) * i / count);
    worst = std::max(worst, Ulps(f(x), oracle(static_cast<double>(x))));
  }
  return worst;
}

TEST(CanonTest, Ex2IsWithinAnUlp) {
  const auto f = [](float x) { return canon::Ex2(x); };
  const auto oracle = [](double x) { return std::exp2(x); };
  EXPECT_LT(WorstUlps(f, oracle, -1, 1, 1'000'000), 1.0);
  EXPECT_LT(WorstUlps(f, oracle, -126, 127.9, 1'000'000), 1.0);
  EXPECT_LT(WorstUlps(f, oracle, -152, -126, 100'000), 1.0) << "denormal results";
  EXPECT_EQ(canon::Ex2(0.0f), 1.0f);
  EXPECT_EQ(canon::Ex2(-kInfinity), 0.0f);
  EXPECT_EQ(canon::Ex2(-1000.0f), 0.0f);
  EXPECT_EQ(canon::Ex2(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(canon::Ex2(NAN)));
}

TEST(CanonTest, ExpIsWithinAnUlp) {
  const auto f = [](float x) { return canon::Exp(x); };
  const auto oracle = [](double x) { return std::exp(x); };
  EXPECT_LT(WorstUlps(f, oracle, -1, 1, 1'000'000), 1.0);
  EXPECT_LT(WorstUlps(f, oracle, -87, 88, 1'000'000), 1.0);
  EXPECT_LT(WorstUlps(f, oracle, -104, -87, 100'000), 1.0) << "denormal results";
  EXPECT_EQ(canon::Exp(0.0f), 1.0f);
  EXPECT_EQ(canon::Exp(-kInfinity), 0.0f);
  EXPECT_EQ(canon::Exp(100.0f), kInfinity);
  EXPECT_TRUE(std::isnan(canon::Exp(NAN)));
}

TEST(CanonTest, LogIsWithinTwoUlps) {
  const auto f = [](float x) { return canon::Log(x); };
  const auto oracle = [](double x) { return std::log(x); };
  EXPECT_LT(WorstUlps(f, oracle, 1e-6, 2, 2'000'000), 2.0);
  EXPECT_LT(WorstUlps(f, oracle, 1, 1e6, 1'000'000), 2.0);
  EXPECT_LT(WorstUlps(f, oracle, 1e-44, 1e-37, 100'000), 2.0) << "denormal arguments";
  EXPECT_EQ(canon::Log(1.0f), 0.0f);
  EXPECT_EQ(canon::Log(0.0f), -kInfinity);
  EXPECT_EQ(canon::Log(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(canon::Log(-1.0f)));
  EXPECT_TRUE(std::isnan(canon::Log(NAN)));
}

TEST(CanonTest, Log1pIsPreciseAtBothEnds) {
  const auto f = [](float x) { return canon::Log1p(x); };
  const auto oracle = [](double x) { return std::log1p(x); };
  EXPECT_LT(WorstUlps(f, oracle, -0.999, 1, 2'000'000), 3.0);
  for (int e = -32; e < 0; ++e) {
    const double v = std::ldexp(1.3, e - 1);
    EXPECT_LT(Ulps(canon::Log1p(static_cast<float>(-v)), std::log1p(-static_cast<float>(v))), 3.0)
        << e;
  }
  EXPECT_LT(Ulps(canon::Log1p(-(1.0f - 0x1p-24f)), std::log1p(-(1.0 - 0x1p-24))), 3.0);
}

TEST(CanonTest, Float16WidensExactly) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float got = canon::WidenF16(static_cast<uint16_t>(bits));
    const int exponent = static_cast<int>(bits >> 10 & 31);
    const int mantissa = static_cast<int>(bits & 1023);
    if (exponent == 31) {
      ASSERT_EQ(std::isnan(got), mantissa != 0) << bits;
      ASSERT_EQ(std::isinf(got), mantissa == 0) << bits;
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    ASSERT_EQ(got, (bits & 0x8000) != 0 ? -magnitude : magnitude) << bits;
  }
}

TEST(CanonTest, PhiloxGivesItsPublishedVectors) {
  const auto check = [](uint64_t key, std::vector<uint32_t> counter,
                        const std::vector<uint32_t>& want) {
    canon::Philox(key, counter.data());
    EXPECT_EQ(counter, want);
  };
  check(0, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  check(~uint64_t{0}, {~0u, ~0u, ~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  check(0x299f31d0a4093822, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
        {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST(CanonTest, NoiseIsFiniteAndPreciseInTheTailThatWins) {
  for (const uint32_t word : {0u, 1u, 0x7FFFFFFFu, 0xFFFFFF00u, 0xFFFFFFFEu, 0xFFFFFFFFu}) {
    EXPECT_TRUE(std::isfinite(canon::NoiseOfWord(word))) << word;
  }
  // Word 0 is the largest: v = 2^-33, noise = -log(2^-33) to the last bits.
  EXPECT_NEAR(canon::NoiseOfWord(0), 33 * std::log(2.0), 1e-5);
  EXPECT_GT(canon::NoiseOfWord(0), canon::NoiseOfWord(1));
  // The mean of the noise is Euler's constant.
  double sum = 0;
  constexpr int kDraws = 200'000;
  for (int i = 0; i < kDraws; ++i) sum += canon::Noise(7, 0, i / 1000, i % 1000);
  EXPECT_NEAR(sum / kDraws, 0.5772, 0.02);
}

TEST(CanonTest, MassesAreRoundedSharesOf2To40) {
  EXPECT_EQ(canon::Mass(3.0f, 3.0f), canon::kMassOne);
  EXPECT_EQ(canon::Mass(kInfinity, kInfinity), canon::kMassOne);
  EXPECT_EQ(canon::Mass(-kInfinity, 3.0f), 0u);
  EXPECT_EQ(canon::Mass(0.0f, 100.0f), 0u);
  EXPECT_NEAR(static_cast<double>(canon::Mass(0.0f, 1.0f)), std::exp(-1.0) * 0x1p40, 0x1p18);
}

}  // namespace
}  // namespace fathom::kernels
