#include "kernels/cuda/linear/skinny_epilogue.cuh"
#include "kernels/cuda/linear/skinny_launch.cuh"

namespace fathom::kernels::cuda {

cudaError_t SkinnyQkv(const LaunchContext& context, const SkinnyWeight& w, const SkinnyQkvArgs& a) {
  if (a.head_dim <= 0 || a.head_dim % 16 != 0 || a.heads <= 0 || a.kv_heads <= 0 ||
      (a.heads + 2 * a.kv_heads) * a.head_dim != w.n) {
    return cudaErrorInvalidValue;
  }
  return skinny::LaunchSkinny({context, w, a.input}, [&](auto zero) {
    using T = decltype(zero);
    return skinny::QkvEpilogue<T>{.bias = a.bias,
                                  .kv = a.kv,
                                  .q = static_cast<T*>(a.q),
                                  .heads = a.heads,
                                  .kv_heads = a.kv_heads,
                                  .head_dim = a.head_dim,
                                  .n = w.n};
  });
}

}  // namespace fathom::kernels::cuda
