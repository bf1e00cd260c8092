#include "kernels/cuda/rows/rmsnorm.h"

#include "kernels/cuda/rows/norm_vectors.cuh"
#include "kernels/cuda/rows/row_ops_config.h"

namespace fathom::kernels::cuda {
namespace {

// A thread block computes a row; a thread is a lane of the recipe.
constexpr int kLanes = kNormLanes;
static_assert(kLanes == kNormThreads);

FATHOM_DEVICE float SumLanes(float sum) {
  __shared__ float groups[kLanes / 32];
  sum = SumGroup(sum);
  if (threadIdx.x % 32 == 0) groups[threadIdx.x / 32] = sum;
  __syncthreads();
  return SumGroups(groups[0], groups[1], groups[2], groups[3]);
}

template <class T>
FATHOM_DEVICE uint4 Normed(uint4 x, float factor, const float* weight, int vector) {
  const float4* const w = reinterpret_cast<const float4*>(weight) + 2 * vector;
  return NormVector<T>(x, factor, __ldg(w), __ldg(w + 1));
}

// kKept: the vectors of a lane, all of which stay in registers. 0: any number of vectors, which are
// read twice.
template <class T, int kKept>
__global__ void __launch_bounds__(kLanes) RmsNormKernel(const RmsNormArgs a, float inverse_width) {
  WaitForPrevious();
  const int row = blockIdx.x, vectors = a.width / 8;
  const int64_t from = a.gather != nullptr ? a.gather[row] : row;
  uint4* x = static_cast<uint4*>(a.x) + from * vectors;
  const uint4* addend = static_cast<const uint4*>(a.addend) + int64_t{row} * vectors;
  uint4 kept[kKept > 0 ? kKept : 1];
  float sum = 0.0f;
  const auto load = [&](int vector) {
    return vector < vectors ? x[vector] : make_uint4(0, 0, 0, 0);
  };
  const auto take = [&](uint4* value, int vector) {
    if (a.addend != nullptr && vector < vectors) {
      *value = AddRounded<T>(*value, addend[vector]);
      x[vector] = *value;
    }
    sum = AddSquares<T>(*value, sum);
  };
  if constexpr (kKept > 0) {
#pragma unroll
    for (int i = 0; i < kKept; ++i) kept[i] = load(threadIdx.x + i * kLanes);
    LetNextStart();
#pragma unroll
    for (int i = 0; i < kKept; ++i) take(&kept[i], threadIdx.x + i * kLanes);
  } else {
    LetNextStart();
    for (int vector = threadIdx.x; vector < vectors; vector += kLanes) {
      kept[0] = load(vector);
      take(&kept[0], vector);
    }
  }
  if (a.y == nullptr) return;
  const float factor = NormFactor(SumLanes(sum), inverse_width, a.eps);
  uint4* y = static_cast<uint4*>(a.y) + int64_t{row} * vectors;
  if constexpr (kKept > 0) {
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const int vector = threadIdx.x + i * kLanes;
      if (vector < vectors) y[vector] = Normed<T>(kept[i], factor, a.weight, vector);
    }
  } else {
    for (int vector = threadIdx.x; vector < vectors; vector += kLanes) {
      y[vector] = Normed<T>(x[vector], factor, a.weight, vector);
    }
  }
}

template <class T>
cudaError_t LaunchRmsNorm(const LaunchContext& context, const RmsNormArgs& args,
                          const RowOpConfig& config) {
  auto* kernel = config.variant == 1   ? RmsNormKernel<T, 1>
                 : config.variant == 2 ? RmsNormKernel<T, 2>
                 : config.variant == 4 ? RmsNormKernel<T, 4>
                 : config.variant == 6 ? RmsNormKernel<T, 6>
                 : config.variant == 8 ? RmsNormKernel<T, 8>
                                       : RmsNormKernel<T, 0>;
  return Launch(context, dim3(config.blocks_x), dim3(config.threads), 0, kernel, args,
                static_cast<float>(1.0 / args.width));
}

}  // namespace

cudaError_t RmsNorm(const LaunchContext& context, const RmsNormArgs& args) {
  const auto config = RmsNormPickConfig(args.rows, args.width);
  if (!config) return cudaErrorInvalidValue;
  if (args.addend != nullptr && args.gather != nullptr) return cudaErrorInvalidValue;
  if (args.rows == 0) return IsDeviceType(args.dtype) ? cudaSuccess : cudaErrorInvalidValue;
  return WithType(args.dtype,
                  [&](auto zero) { return LaunchRmsNorm<decltype(zero)>(context, args, *config); });
}

}  // namespace fathom::kernels::cuda
