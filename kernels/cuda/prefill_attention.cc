#include "kernels/cuda/prefill_attention.h"

namespace fathom::kernels::cuda {

cudaError_t PrefillAttention(const LaunchContext& context, const PrefillAttentionArgs& args) {
  // wgmma has one head size; its tensor maps and instructions are sm_90a's alone.
  if (context.sm == 90 && args.head_dim == 128) return PrefillAttentionWgmma(context, args);
  return PrefillAttentionGeneric(context, args);
}

}  // namespace fathom::kernels::cuda
