// kernels/dummy_weight.h: random weights as a function of (tensor, element, seed), with equal bits
// on the host and on a GPU: nearly normal, the sum of four uniform numbers of 16 bits of a hash,
// scaled to a deviation of 0.02. Integers and one rounded product.
#pragma once

#include <cstdint>

namespace fathom::kernels {

#ifdef __CUDACC__
#define FATHOM_DUMMY static __host__ __device__ __forceinline__
#else
#define FATHOM_DUMMY static inline __attribute__((always_inline))
#endif

// A hash of 64 bits whose output bits all depend on all input bits (SplitMix64's finalizer).
FATHOM_DUMMY uint64_t DummyMix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// Of the tensor that is number `tensor` of the model's, in the order of ExpectedTensors.
FATHOM_DUMMY uint64_t DummyKey(uint64_t seed, uint64_t tensor) {
  return DummyMix(seed + tensor * 0xD1342543DE82EF95ull + 1);
}

// `element` counts the whole tensor's elements, row-major.
FATHOM_DUMMY float DummyValue(uint64_t key, int64_t element) {
  const uint64_t bits = DummyMix(key + static_cast<uint64_t>(element) * 0x9E3779B97F4A7C15ull);
  const auto low = static_cast<uint32_t>(bits), high = static_cast<uint32_t>(bits >> 32);
  const uint32_t sum = (low & 0xFFFFu) + (low >> 16) + (high & 0xFFFFu) + (high >> 16);
  constexpr int32_t kMean = 2 * 0xFFFF;
  constexpr float kScale = 0.02f / 37837.2f;  // sqrt(4 * (65536^2 - 1) / 12)
  return static_cast<float>(static_cast<int32_t>(sum) - kMean) * kScale;
}

#undef FATHOM_DUMMY

}  // namespace fathom::kernels
