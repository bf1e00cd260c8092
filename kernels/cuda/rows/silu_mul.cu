#include "kernels/cuda/rows/silu_mul.h"

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/rows/row_ops_config.h"

namespace fathom::kernels::cuda {
namespace {

constexpr int kThreads = kRowOpThreads;

template <class T>
FATHOM_DEVICE uint32_t SiluMulPair(uint32_t gate, uint32_t up) {
  const float2 g = Element<T>::Unpack(gate), u = Element<T>::Unpack(up);
  return Element<T>::Pack(__fmul_rn(Silu(g.x), u.x), __fmul_rn(Silu(g.y), u.y));
}

// A thread has one tile of the paired order: 8 gates, then their 8 ups.
template <class T>
__global__ void __launch_bounds__(kThreads) SiluMulKernel(const SiluMulArgs a) {
  WaitForPrevious();
  LetNextStart();
  const int tile = blockIdx.x * kThreads + threadIdx.x, tiles = a.ffn / 8;
  if (tile >= tiles) return;
  const int64_t at = int64_t{blockIdx.y} * tiles + tile;
  const uint4* from = static_cast<const uint4*>(a.gate_up) + 2 * at;
  const uint4 g = from[0], u = from[1];
  static_cast<uint4*>(a.y)[at] = make_uint4(SiluMulPair<T>(g.x, u.x), SiluMulPair<T>(g.y, u.y),
                                            SiluMulPair<T>(g.z, u.z), SiluMulPair<T>(g.w, u.w));
}

}  // namespace

cudaError_t SiluMul(const LaunchContext& context, const SiluMulArgs& args) {
  const auto config = SiluMulPickConfig(args.rows, args.ffn);
  if (!config || !IsDeviceType(args.dtype)) return cudaErrorInvalidValue;
  if (args.rows == 0) return cudaSuccess;
  return WithType(args.dtype, [&](auto zero) {
    return Launch(context, dim3(config->blocks_x, config->blocks_y), dim3(config->threads), 0,
                  SiluMulKernel<decltype(zero)>, args);
  });
}

}  // namespace fathom::kernels::cuda
