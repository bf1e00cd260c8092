// The arithmetic by which the sampler's CUDA kernel selects tokens, run on the host: the places of
// ids, the order of keys, spans narrowed to the tokens that a sort keeps, and the bounds of the
// noise.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/canon.h"
#include "kernels/cuda/sampler/sampler_config.h"
#include "tests/kernels/compare.h"

namespace fathom::kernels::cuda {
namespace {

// A token with its key and its weight; ordered by (key descending, id ascending).
struct Candidate {
  uint64_t key = 0;
  uint64_t weight = 0;
  int32_t id = 0;
};

// Like the kernel's Narrow, but a loop fills the bins. Returns whether all keys from `low` on are
// kept.
template <class Tighten>
bool Narrow(const std::vector<Candidate>& all, KeySpan* span, int* passes, Tighten tighten) {
  while (span->low < span->high) {
    ++*passes;
    const int shift = ShiftOf(*span);
    std::vector<uint64_t> weights(kSelectBins), counts(kSelectBins);
    std::vector<uint32_t> limbs(size_t{kSelectBins} * kMassLimbs);
    for (const Candidate& one : all) {
      if (one.key < span->low || one.key > span->high) continue;
      const auto bin = static_cast<size_t>((one.key - span->low) >> shift);
      EXPECT_LT(bin, size_t{kSelectBins});
      ++counts[bin];
      for (int limb = 0; limb < kMassLimbs; ++limb) {
        limbs[bin * kMassLimbs + static_cast<size_t>(limb)] += MassLimb(one.weight, limb);
      }
      weights[bin] += one.weight;
    }
    int bin = kSelectBins - 1;
    uint64_t above = 0;
    for (; bin > 0 && above + weights[static_cast<size_t>(bin)] < span->target; --bin) {
      above += weights[static_cast<size_t>(bin)];
    }
    const auto found = static_cast<size_t>(bin);
    const uint32_t* limb = limbs.data() + found * kMassLimbs;
    EXPECT_EQ(MassOfLimbs(limb[0], limb[1], limb[2]), weights[found]);
    NarrowToBin(span, bin, shift, above);
    if (counts[found] == 1 || weights[found] == span->target) return true;
    tighten(span);
  }
  return false;
}

// The kept ids, ascending, by the rule of the kernel's Select.
template <class Tighten>
std::vector<int32_t> Select(const std::vector<Candidate>& all, KeySpan span, int* passes,
                            Tighten tighten) {
  uint64_t last_id = kSampleVocabMax;
  if (!Narrow(all, &span, passes, tighten)) {
    std::vector<Candidate> ties;
    uint64_t weight = 1;
    for (const Candidate& one : all) {
      if (one.key != span.low) continue;
      weight = one.weight;
      ties.push_back({static_cast<uint64_t>(kSampleVocabMax - 1 - one.id), 1, one.id});
    }
    KeySpan ids{0, kSampleVocabMax - 1, (span.target + weight - 1) / weight};
    Narrow(ties, &ids, passes, [](KeySpan*) {});
    last_id = kSampleVocabMax - 1 - ids.low;
  }
  std::vector<int32_t> kept;
  for (const Candidate& one : all) {
    const bool tie = one.key == span.low && static_cast<uint64_t>(one.id) <= last_id;
    if (one.key > span.low || tie) kept.push_back(one.id);
  }
  return kept;
}

std::vector<int32_t> SelectBySort(std::vector<std::pair<uint64_t, Candidate>> order,
                                  uint64_t target) {
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<int32_t> kept;
  uint64_t sum = 0;
  for (const auto& [key, one] : order) {
    if (sum >= target) break;
    kept.push_back(one.id);
    sum += one.weight;
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

std::vector<float> Row(size_t vocab, int kind, std::mt19937_64& random) {
  std::vector<float> z = MakeValues(vocab, Values::kNormal, random);
  for (float& value : z) {
    if (kind == 0) value *= 3.0f;
    if (kind == 1) value = std::round(value * 4.0f) / 4.0f;
    if (kind == 2) value = 7.0f;
    if (kind == 3) value = value * 1e-3f + 100.0f;
    if (kind == 4) value *= 1e6f;
    if (kind == 5 && random() % 3 == 0) value = -INFINITY;
    if (kind == 6) value = random() % 2 == 0 ? 0.0f : -0.0f;
  }
  return z;
}

TEST(SamplerSelectTest, IdsLieWhereTheirLanesAre) {
  for (const int vocab : {1, 100, 1000, 4096, 32256, 102400, 152064, 151643}) {
    std::vector<int> found(static_cast<size_t>(vocab));
    for (int block = 0; block < kSampleBlocks; ++block) {
      int before = -1;
      for (int local = 0; local < LocalCount(vocab, block); ++local) {
        const int id = IdOfLocal(local, block);
        ASSERT_LT(id, vocab);
        ASSERT_GT(id, before);
        before = id;
        ASSERT_EQ(BlockOfId(id), block);
        ASSERT_EQ(LocalOfId(id), local);
        ASSERT_EQ(id % kSampleLanes % kBlockLanes, local % kBlockLanes);
        ++found[static_cast<size_t>(id)];
      }
      EXPECT_LE(LocalCount(vocab, block), LocalCount(vocab, 0));
    }
    EXPECT_EQ(std::count(found.begin(), found.end(), 1), vocab);
  }
}

TEST(SamplerSelectTest, KeysKeepTheOrder) {
  std::mt19937_64 random(TestSeed());
  std::vector<float> values = MakeValues(2000, Values::kHard, random);
  values.insert(values.end(), {0.0f, -0.0f, INFINITY, -INFINITY, 3e38f, -3e38f});
  std::sort(values.begin(), values.end());
  for (size_t i = 1; i < values.size(); ++i) {
    ASSERT_EQ(values[i - 1] < values[i], Orderable(values[i - 1]) < Orderable(values[i]));
    ASSERT_EQ(FromOrderable(Orderable(values[i])), values[i]);
  }
  EXPECT_GT(PlaceKey(1.0f, 3), PlaceKey(1.0f, 4));
  EXPECT_GT(PlaceKey(1.5f, 9), PlaceKey(1.0f, 4));
  EXPECT_EQ(IdOfPlace(PlaceKey(-2.0f, 12345)), 12345);
  for (int i = 0; i < 2000; ++i) {
    const uint64_t mass = random() % (canon::kMassOne + 1) >> random() % 41;
    ASSERT_EQ(MassOfKey(MassKey(mass)), mass);
    ASSERT_LT(MassKey(mass), MassKey(mass + 1));
  }
  EXPECT_EQ(canon::Mass(-kMasslessBelow, 0.0f), 0u);
}

TEST(SamplerSelectTest, ScoresAreSelectedAsBySorting) {
  std::mt19937_64 random(TestSeed());
  for (int round = 0; round < 300; ++round) {
    const std::vector<float> z = Row(1 + random() % 3000, round % 7, random);
    const float best = *std::max_element(z.begin(), z.end());
    if (best == -INFINITY) continue;
    std::vector<Candidate> all;
    std::vector<std::pair<uint64_t, Candidate>> order;
    for (size_t id = 0; id < z.size(); ++id) {
      all.push_back({ScoreKey(z[id], best), 1, static_cast<int32_t>(id)});
      order.emplace_back(Orderable(z[id]), all.back());
    }
    for (const size_t target : {size_t{1}, size_t{20}, 1 + random() % z.size(), z.size()}) {
      if (target > z.size()) continue;
      int passes = 0;
      const auto kept = Select(all, AllScores(target), &passes,
                               [best](KeySpan* span) { TightenScores(span, best); });
      ASSERT_EQ(kept, SelectBySort(order, target)) << "round " << round << ", of " << z.size();
      ASSERT_LE(passes, 7);
    }
  }
}

TEST(SamplerSelectTest, MassesAreSelectedAsBySorting) {
  std::mt19937_64 random(TestSeed());
  for (int round = 0; round < 300; ++round) {
    const std::vector<float> z = Row(1 + random() % 3000, round % 7, random);
    const float best = *std::max_element(z.begin(), z.end());
    if (best == -INFINITY) continue;
    std::vector<Candidate> all;
    std::vector<std::pair<uint64_t, Candidate>> order;
    KeySpan span{~uint64_t{0}, 0, 0};
    uint64_t total = 0;
    for (size_t id = 0; id < z.size(); ++id) {
      const uint64_t mass = canon::Mass(z[id], best);
      if (mass == 0) continue;
      total += mass;
      all.push_back({MassKey(mass), mass, static_cast<int32_t>(id)});
      order.emplace_back(mass, all.back());
      span.low = std::min(span.low, MassKey(mass));
      span.high = std::max(span.high, MassKey(mass));
    }
    for (const float top_p : {0.0f, 0.1f, 0.5f, 0.9f, 0.999f, 0x1.fffffep-1f}) {
      span.target = canon::MassTarget(top_p, total);
      int passes = 0;
      const auto kept = Select(all, span, &passes, [](KeySpan*) {});
      ASSERT_EQ(kept, SelectBySort(order, span.target)) << "round " << round << ", " << top_p;
      ASSERT_LE(passes, 9);
    }
  }
}

TEST(SamplerSelectTest, TypicalTokensAreSelectedAsBySorting) {
  std::mt19937_64 random(TestSeed());
  for (int round = 0; round < 300; ++round) {
    const std::vector<float> z = Row(1 + random() % 3000, round % 7, random);
    const float best = *std::max_element(z.begin(), z.end());
    if (best == -INFINITY) continue;
    uint64_t masses = 0, gaps = 0;
    for (const float one : z) {
      const uint64_t mass = canon::Mass(one, best);
      masses += mass;
      if (mass != 0) gaps += canon::WeightedGap(mass, canon::Gap(one, best));
    }
    const uint64_t mean = canon::MeanGap(gaps, masses);
    std::vector<Candidate> all;
    std::vector<std::pair<uint64_t, uint64_t>> order;  // Distance and mass.
    for (size_t id = 0; id < z.size(); ++id) {
      const uint64_t mass = canon::Mass(z[id], best);
      if (mass == 0) continue;
      const uint64_t distance = canon::DistanceOf(canon::Gap(z[id], best), mean);
      ASSERT_LE(distance, kDistanceKeyMax);
      all.push_back({DistanceKey(distance), mass, static_cast<int32_t>(id)});
      order.emplace_back(distance, mass);
    }
    std::sort(order.begin(), order.end());
    for (const float typical_p : {1e-45f, 0.1f, 0.5f, 0.9f, 0.999f, 0x1.fffffep-1f}) {
      KeySpan span{0, kDistanceKeyMax, canon::MassTarget(typical_p, masses)};
      uint64_t sum = 0, farthest = 0;
      for (size_t i = 0; sum < span.target; ++i) {
        farthest = order[i].first;
        sum += order[i].second;
      }
      int passes = 0;
      Narrow(all, &span, &passes, [](KeySpan*) {});
      for (const Candidate& one : all) {
        ASSERT_EQ(one.key >= span.low, one.key >= DistanceKey(farthest)) << "round " << round;
      }
      ASSERT_LE(passes, 5);
    }
  }
}

TEST(SamplerSelectTest, LimbsHoldTheMassesOfTheLargestVocabulary) {
  for (const uint64_t mass : {uint64_t{1} << 40, (uint64_t{1} << 40) - 1, uint64_t{0x3FFF}}) {
    uint32_t limbs[kMassLimbs] = {};
    for (int i = 0; i < kSampleVocabMax; ++i) {
      for (int limb = 0; limb < kMassLimbs; ++limb) limbs[limb] += MassLimb(mass, limb);
    }
    EXPECT_EQ(MassOfLimbs(limbs[0], limbs[1], limbs[2]), mass * kSampleVocabMax);
  }
}

TEST(SamplerSelectTest, NoiseIsWithinItsBounds) {
  std::mt19937_64 random(TestSeed());
  const auto check = [](uint32_t word) {
    const float noise = canon::NoiseOfWord(word);
    ASSERT_GT(noise, kNoiseMin + 0.01f) << word;
    ASSERT_LT(noise, NoiseBound(word == 0 ? 32 : __builtin_clz(word)) - 0.001f) << word;
  };
  for (int bit = 0; bit < 32; ++bit) {
    for (const uint32_t less : {0u, 1u, 2u}) check((1u << bit) - less);
  }
  for (int i = 0; i < 200'000; ++i) check(static_cast<uint32_t>(random()) >> random() % 32);
}

TEST(SamplerSelectTest, SeenIsCountedAndSaturates) {
  EXPECT_EQ(SeenAgain(0), 0x8001);
  EXPECT_EQ(SeenAgain(0x8000), 0x8001);
  EXPECT_EQ(SeenAgain(0x8005), 0x8006);
  EXPECT_EQ(SeenAgain(0xFFFF), 0xFFFF);
}

}  // namespace
}  // namespace fathom::kernels::cuda
