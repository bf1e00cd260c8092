#include "kernels/cuda/rmsnorm.h"

#include "kernels/cuda/canon.cuh"

namespace fathom::kernels::cuda {
namespace {

// A thread is a lane of the recipe, a thread block a row.
constexpr int kLanes = 128;
// Vectors of 8 that a lane keeps in registers at most; wider rows are read a second time.
constexpr int kKeptMax = 8;

struct Vector8 {
  float v[8];
};
template <class T>
FATHOM_DEVICE Vector8 Unpack8(uint4 x) {
  const float2 a = Element<T>::Unpack(x.x), b = Element<T>::Unpack(x.y);
  const float2 c = Element<T>::Unpack(x.z), d = Element<T>::Unpack(x.w);
  return {{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
}
template <class T>
FATHOM_DEVICE uint4 Pack8(const Vector8& x) {
  using E = Element<T>;
  return make_uint4(E::Pack(x.v[0], x.v[1]), E::Pack(x.v[2], x.v[3]), E::Pack(x.v[4], x.v[5]),
                    E::Pack(x.v[6], x.v[7]));
}

template <class T>
FATHOM_DEVICE uint4 AddRounded(uint4 x, uint4 addend) {
  Vector8 a = Unpack8<T>(x);
  const Vector8 b = Unpack8<T>(addend);
#pragma unroll
  for (int j = 0; j < 8; ++j) a.v[j] = __fadd_rn(a.v[j], b.v[j]);
  return Pack8<T>(a);
}

FATHOM_DEVICE float SumLanes(float sum) {
  __shared__ float groups[kLanes / 32];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    sum = __fadd_rn(sum, __shfl_xor_sync(0xFFFFFFFFu, sum, distance));
  }
  if (threadIdx.x % 32 == 0) groups[threadIdx.x / 32] = sum;
  __syncthreads();
  return __fadd_rn(__fadd_rn(__fadd_rn(groups[0], groups[1]), groups[2]), groups[3]);
}

template <class T>
FATHOM_DEVICE uint4 Normed(uint4 x, float factor, const float* weight, int vector) {
  Vector8 a = Unpack8<T>(x);
  const float4* w = reinterpret_cast<const float4*>(weight) + 2 * vector;
  const float4 low = __ldg(w), high = __ldg(w + 1);
  const float of[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
  for (int j = 0; j < 8; ++j) a.v[j] = NormValue(a.v[j], factor, of[j]);
  return Pack8<T>(a);
}

// kKept: vectors of a lane, all kept in registers; 0: any number, read twice.
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
    const Vector8 v = Unpack8<T>(*value);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum = canon::Fma(v.v[j], v.v[j], sum);
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
cudaError_t LaunchRmsNorm(const LaunchContext& context, const RmsNormArgs& args) {
  const int lane_vectors = (args.width / 8 + kLanes - 1) / kLanes;
  auto* kernel = lane_vectors <= 1          ? RmsNormKernel<T, 1>
                 : lane_vectors <= 2        ? RmsNormKernel<T, 2>
                 : lane_vectors <= 4        ? RmsNormKernel<T, 4>
                 : lane_vectors <= 6        ? RmsNormKernel<T, 6>
                 : lane_vectors <= kKeptMax ? RmsNormKernel<T, kKeptMax>
                                            : RmsNormKernel<T, 0>;
  return Launch(context, dim3(args.rows), dim3(kLanes), 0, kernel, args,
                static_cast<float>(1.0 / args.width));
}

}  // namespace

cudaError_t RmsNorm(const LaunchContext& context, const RmsNormArgs& args) {
  if (args.width <= 0 || args.width % 8 != 0 || args.rows < 0) return cudaErrorInvalidValue;
  if (args.addend != nullptr && args.gather != nullptr) return cudaErrorInvalidValue;
  if (args.rows == 0) return IsDeviceType(args.dtype) ? cudaSuccess : cudaErrorInvalidValue;
  return WithType(args.dtype,
                  [&](auto zero) { return LaunchRmsNorm<decltype(zero)>(context, args); });
}

}  // namespace fathom::kernels::cuda
