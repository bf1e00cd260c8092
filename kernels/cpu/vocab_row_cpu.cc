// Passes over one row of the vocabulary: the parts of the log-probability and of the sampler that
// touch every token.
#include "kernels/canon.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace fathom::kernels {
namespace FATHOM_ISA {

using canon::kLanes;

bool HasNonFinite(const float* z, int64_t count) {
  uint32_t found = 0;
  for (int64_t i = 0; i < count; ++i) found |= canon::IsFinite(z[i]) ? 0u : 1u;
  return found != 0;
}

float MaxOf(const float* z, int64_t count) {
  float lanes[kLanes];
  for (int j = 0; j < kLanes; ++j) lanes[j] = z[0];
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = canon::Max(lanes[j], z[i + j]);
  }
  for (; i < count; ++i) lanes[0] = canon::Max(lanes[0], z[i]);
  float best = lanes[0];
  for (int j = 1; j < kLanes; ++j) best = canon::Max(best, lanes[j]);
  return best;
}

float SumExp(const float* z, int64_t count, float best) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += canon::Exp(z[i + j] - best);
  }
  for (int j = 0; i < count; ++i, ++j) lanes[j] += canon::Exp(z[i] - best);
  return canon::ReduceLanes(lanes);
}

void Temper(float* z, int64_t count, float temperature) {
  for (int64_t i = 0; i < count; ++i) z[i] = canon::Tempered(z[i], temperature);
}

void Masses(const float* z, int64_t count, float best, uint64_t* mass) {
  for (int64_t i = 0; i < count; ++i) mass[i] = canon::Mass(z[i], best);
}

void AddNoise(float* z, int64_t count, uint64_t seed, int32_t sequence, int32_t position) {
  // One Philox counter gives the words of four ids. 16 counters are computed at a time, one per
  // lane.
  constexpr int kCounters = 16;
  uint32_t words[4][kCounters];
  float noise[4][kCounters];
  for (int64_t first = 0; first < count; first += 4 * kCounters) {
    for (int j = 0; j < kCounters; ++j) {
      uint32_t c[4] = {static_cast<uint32_t>(first / 4 + j), static_cast<uint32_t>(position),
                       static_cast<uint32_t>(sequence), 0};
      canon::Philox(seed, c);
      for (int w = 0; w < 4; ++w) words[w][j] = c[w];
    }
    for (int w = 0; w < 4; ++w) {
      for (int j = 0; j < kCounters; ++j) noise[w][j] = canon::NoiseOfWord(words[w][j]);
    }
    const int64_t left = count - first < 4 * kCounters ? count - first : 4 * kCounters;
    for (int64_t i = 0; i < left; ++i) z[first + i] += noise[i % 4][i / 4];
  }
}

}  // namespace FATHOM_ISA
}  // namespace fathom::kernels
