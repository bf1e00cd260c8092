#include "kernels/cuda/sampler/sampler_pick.h"

#include "kernels/cuda/sampler/sampler_config.h"

namespace fathom::kernels::cuda {

std::optional<SamplerConfig> SamplerPickConfig(int sm, int vocab) {
  if (sm < 80 || vocab < 1 || vocab > kSampleVocabMax) return std::nullopt;
  if (sm != 90) return SamplerConfig{SamplerKernel::kGeneric, 1, kGenericSampleThreads, 0};
  // The first block has the most ids. The size is rounded up to whole quads of fp32.
  const int bytes = (LocalCount(vocab, 0) + 3) / 4 * 16;
  return SamplerConfig{SamplerKernel::kCluster, kSampleBlocks, kClusterSampleThreads, bytes};
}

std::string ToString(const SamplerConfig& config) {
  return std::string(config.kernel == SamplerKernel::kCluster ? "cluster" : "generic") +
         ", blocks " + std::to_string(config.blocks) + ", threads " +
         std::to_string(config.threads) + ", " + std::to_string(config.shared_bytes) +
         " bytes shared";
}

}  // namespace fathom::kernels::cuda
