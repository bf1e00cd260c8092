// kernels/cuda/sampler/sampler_pick.h: which of the sampler's kernels
// (kernels/cuda/sampler/sampler.h) a device takes, and its thread blocks. Pure: tested without a
// GPU. Both give the same bits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace fathom::kernels::cuda {

// kCluster: a row lies in the shared memory of a cluster of thread blocks (sm_90). kGeneric: one
// thread block reads it again and again (sm_80 and later).
enum class SamplerKernel : uint8_t { kCluster, kGeneric };

struct SamplerConfig {
  SamplerKernel kernel = SamplerKernel::kGeneric;
  int blocks = 1;  // Of a row.
  int threads = 0;
  int shared_bytes = 0;  // Of a thread block: its part of the row's logits.
  bool operator==(const SamplerConfig&) const = default;
};

inline constexpr int kClusterSampleThreads = 512;
inline constexpr int kGenericSampleThreads = 1024;

// nullopt: no kernel.
std::optional<SamplerConfig> SamplerPickConfig(int sm, int vocab);
std::string ToString(const SamplerConfig& config);

}  // namespace fathom::kernels::cuda
