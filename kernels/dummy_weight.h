// kernels/dummy_weight.h: random weights as a function of (tensor, element, seed), with equal bits
// on the host and on a GPU. A weight is nearly normally distributed: it is the sum of four 16-bit
// parts of a hash, scaled to a standard deviation of 0.02. The computation is integer arithmetic
// and one rounded product.
#pragma once

#include <cstdint>

namespace fathom::kernels {

#ifdef __CUDACC__
#define FATHOM_DUMMY static __host__ __device__ __forceinline__
#else
#define FATHOM_DUMMY static inline __attribute__((always_inline))
#endif

// A 64-bit hash (SplitMix64's finalizer): every output bit depends on every input bit.
FATHOM_DUMMY uint64_t DummyMix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// The key of tensor number `tensor` of the model, counted in the order of ExpectedTensors.
FATHOM_DUMMY uint64_t DummyKey(uint64_t seed, uint64_t tensor) {
  return DummyMix(seed + tensor * 0xD1342543DE82EF95ull + 1);
}

// `element` is the index in the whole tensor (not in a rank's slice), row-major.
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
