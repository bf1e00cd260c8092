#include "kernels/cuda/rows/rope_kv_write.h"

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/rows/row_ops_config.h"

namespace fathom::kernels::cuda {
namespace {

constexpr int kThreads = kRowOpThreads;

struct Pair8 {  // Elements 8 p + j of a head, and those head_dim / 2 later.
  float first[8], second[8];
};

template <class T>
FATHOM_DEVICE void Unpack8(uint4 x, float* to) {
  const uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = Element<T>::Unpack(words[i]);
    to[2 * i] = pair.x, to[2 * i + 1] = pair.y;
  }
}
template <class T>
FATHOM_DEVICE uint4 Pack8(const float* x) {
  using E = Element<T>;
  return make_uint4(E::Pack(x[0], x[1]), E::Pack(x[2], x[3]), E::Pack(x[4], x[5]),
                    E::Pack(x[6], x[7]));
}
FATHOM_DEVICE void Load8(const float* from, float* to) {
  const float4 low = __ldg(reinterpret_cast<const float4*>(from));
  const float4 high = __ldg(reinterpret_cast<const float4*>(from) + 1);
  to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
  to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}

// The norm's sum over a head that kPairs neighbouring threads hold. A head has at most 16 vectors
// of 8 elements. So each of the recipe's 128 lanes has at most one vector, the other lanes are
// zero, and the first exchange that changes a value adds vectors v and v + kPairs, which are in one
// thread.
template <int kPairs>
FATHOM_DEVICE float SumOfSquares(const Pair8& x) {
  float first = 0.0f, second = 0.0f;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    first = canon::Fma(x.first[j], x.first[j], first);
    second = canon::Fma(x.second[j], x.second[j], second);
  }
  float sum = __fadd_rn(first, second);
#pragma unroll
  for (int distance = kPairs / 2; distance > 0; distance /= 2) {
    sum = __fadd_rn(sum, __shfl_xor_sync(0xFFFFFFFFu, sum, distance));
  }
  return sum;
}

template <class T>
FATHOM_DEVICE void Norm8(float* x, float factor, const float* weight) {
  float w[8];
  Load8(weight, w);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    x[j] = Element<T>::Widen(Element<T>::Round(NormValue(x[j], factor, w[j])));
  }
}

FATHOM_DEVICE void Rotate8(Pair8* x, const float* cos, const float* sin) {
  float c[8], s[8];
  Load8(cos, c);
  Load8(sin, s);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float a = x->first[j], b = x->second[j];
    x->first[j] = canon::RotateFirst(a, b, c[j], s[j]);
    x->second[j] = canon::RotateSecond(a, b, c[j], s[j]);
  }
}

// blockIdx.y is the row. kPairs threads have a head; each has one tile of the head's paired order
// (of v: two neighbouring vectors).
template <class T, int kPairs>
__global__ void __launch_bounds__(kThreads)
    RopeKvWriteKernel(const RopeKvWriteArgs a, float inverse_width) {
  constexpr int kDim = kPairs * 16, kHalf = kPairs * 8;
  WaitForPrevious();
  LetNextStart();
  const int row = blockIdx.y, heads = a.heads + 2 * a.kv_heads;
  const int unit = blockIdx.x * kThreads + threadIdx.x, head = unit / kPairs, pair = unit % kPairs;
  const bool active = head < heads;  // Idle threads still take part in the shuffles.
  const int position = a.kv.positions[row], slot = a.kv.kv_slots[row];
  if (kRowFaults && (position < 0 || position >= a.kv.context || slot < 0 ||
                     slot / kBlockTokens >= a.kv.pool_blocks)) {
    if (unit == 0) atomicOr(a.kv.faults + row, kFaultBlockRange);
    return;
  }
  uint4 low = make_uint4(0, 0, 0, 0), high = low;
  if (active) {
    const T* from = static_cast<const T*>(a.qkv) + (int64_t{row} * heads + head) * kDim + pair * 16;
    low = reinterpret_cast<const uint4*>(from)[0];
    high = reinterpret_cast<const uint4*>(from)[1];
  }
  Pair8 x;
  Unpack8<T>(low, x.first);
  Unpack8<T>(high, x.second);
  const bool is_q = head < a.heads, is_v = head >= a.heads + a.kv_heads;
  if (a.q_norm != nullptr || a.k_norm != nullptr) {
    const float factor = NormFactor(SumOfSquares<kPairs>(x), inverse_width, a.eps);
    const float* norm = is_q ? a.q_norm : a.k_norm;
    if (norm != nullptr && !is_v) {
      Norm8<T>(x.first, factor, norm + pair * 8);
      Norm8<T>(x.second, factor, norm + kHalf + pair * 8);
    }
  }
  if (!active) return;
  const int64_t block = slot / kBlockTokens, token = slot % kBlockTokens;
  if (is_v) {
    const int64_t block_head = block * a.kv_heads + (head - a.heads - a.kv_heads);
    T* to = static_cast<T*>(a.kv.values) + (block_head * kBlockTokens + token) * kDim + pair * 16;
    reinterpret_cast<uint4*>(to)[0] = low;
    reinterpret_cast<uint4*>(to)[1] = high;
    return;
  }
  const int64_t angle = int64_t{position} * kHalf + pair * 8;
  Rotate8(&x, a.kv.cos + angle, a.kv.sin + angle);
  const int64_t block_head = block * a.kv_heads + (head - a.heads);
  T* to = is_q ? static_cast<T*>(a.q) + (int64_t{row} * a.heads + head) * kDim
               : static_cast<T*>(a.kv.keys) + (block_head * kBlockTokens + token) * kDim;
  *reinterpret_cast<uint4*>(to + pair * 8) = Pack8<T>(x.first);
  *reinterpret_cast<uint4*>(to + kHalf + pair * 8) = Pack8<T>(x.second);
}

template <class T, int kPairs>
cudaError_t LaunchRope(const LaunchContext& context, const RopeKvWriteArgs& args,
                       const RowOpConfig& config) {
  return Launch(context, dim3(config.blocks_x, config.blocks_y), dim3(config.threads), 0,
                RopeKvWriteKernel<T, kPairs>, args, static_cast<float>(1.0 / args.head_dim));
}

}  // namespace

cudaError_t RopeKvWrite(const LaunchContext& context, const RopeKvWriteArgs& args) {
  const auto config = RopeKvWritePickConfig(args.rows, args.heads, args.kv_heads, args.head_dim);
  if (!config || !IsDeviceType(args.dtype)) return cudaErrorInvalidValue;
  if (args.rows == 0) return cudaSuccess;
  return WithType(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    return config->variant == 8 ? LaunchRope<T, 8>(context, args, *config)
                                : LaunchRope<T, 4>(context, args, *config);
  });
}

}  // namespace fathom::kernels::cuda
