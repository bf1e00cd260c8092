#include "kernels/cuda/attention/prefill_attention.h"

#include "kernels/cuda/attention/prefill_attention_config.h"

namespace fathom::kernels::cuda {

cudaError_t PrefillAttention(const LaunchContext& context, const PrefillAttentionArgs& args) {
  const int64_t plane_rows = int64_t{args.pool_blocks} * args.kv_heads * kBlockTokens;
  const PrefillConfig config = PrefillPickConfig(context.sm, args.head_dim, plane_rows);
  return config.kernel == PrefillKernel::kWgmma ? PrefillAttentionWgmma(context, args)
                                                : PrefillAttentionGeneric(context, args);
}

}  // namespace fathom::kernels::cuda
