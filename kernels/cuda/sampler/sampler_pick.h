// kernels/cuda/sampler/sampler_pick.h: which sampler kernel (kernels/cuda/sampler/sampler.h) a
// device runs, and its thread blocks. Pure: tested without a GPU. Both kernels give the same bits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace fathom::kernels::cuda {

// kCluster: a cluster of thread blocks holds a row in shared memory (sm_90). kGeneric: one thread
// block reads the row several times (sm_80 and later).
enum class SamplerKernel : uint8_t { kCluster, kGeneric };

struct SamplerConfig {
  SamplerKernel kernel = SamplerKernel::kGeneric;
  int blocks = 1;  // Thread blocks of a row.
  int threads = 0;
  int shared_bytes = 0;  // Of a thread block, for its part of the row's logits.
  bool operator==(const SamplerConfig&) const = default;
};

inline constexpr int kClusterSampleThreads = 512;
inline constexpr int kGenericSampleThreads = 1024;

// nullopt: no kernel supports the device or the vocabulary.
std::optional<SamplerConfig> SamplerPickConfig(int sm, int vocab);
std::string ToString(const SamplerConfig& config);

}  // namespace fathom::kernels::cuda
