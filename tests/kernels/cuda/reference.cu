#include "tests/kernels/cuda/reference.h"

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/linear/paired_rows.h"

namespace fathom::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kNormLanes = 128;

int Blocks(int64_t threads) { return static_cast<int>((threads + kThreads - 1) / kThreads); }

// The sum of squares: vector v of 8 elements belongs to lane v mod 128; then the lanes are added in
// the recipe's order.
template <class At>
__device__ float SumOfSquares(int width, At at) {
  float lanes[kNormLanes];
  for (int lane = 0; lane < kNormLanes; ++lane) {
    float sum = 0.0f;
    for (int i = lane * 8; i < width; i += kNormLanes * 8) {
      for (int j = i; j < i + 8; ++j) sum = canon::Fma(at(j), at(j), sum);
    }
    lanes[lane] = sum;
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    float next[kNormLanes];
    for (int lane = 0; lane < kNormLanes; ++lane) {
      next[lane] = __fadd_rn(lanes[lane], lanes[lane ^ distance]);
    }
    for (int lane = 0; lane < kNormLanes; ++lane) lanes[lane] = next[lane];
  }
  return __fadd_rn(__fadd_rn(__fadd_rn(lanes[0], lanes[32]), lanes[64]), lanes[96]);
}

template <class T>
__global__ void RmsNormReference(const RmsNormArgs a, float inverse_width) {
  using E = Element<T>;
  const int row = blockIdx.x * kThreads + threadIdx.x;
  if (row >= a.rows) return;
  const int64_t from = a.gather != nullptr ? a.gather[row] : row;
  T* x = static_cast<T*>(a.x) + from * a.width;
  if (a.addend != nullptr) {
    const T* addend = static_cast<const T*>(a.addend) + int64_t{row} * a.width;
    for (int i = 0; i < a.width; ++i) {
      x[i] = E::Round(__fadd_rn(E::Widen(x[i]), E::Widen(addend[i])));
    }
  }
  if (a.y == nullptr) return;
  const float sum = SumOfSquares(a.width, [&](int i) { return E::Widen(x[i]); });
  const float factor = NormFactor(sum, inverse_width, a.eps);
  T* y = static_cast<T*>(a.y) + int64_t{row} * a.width;
  for (int i = 0; i < a.width; ++i) y[i] = E::Round(NormValue(E::Widen(x[i]), factor, a.weight[i]));
}

template <class T>
__device__ void Mma(float* c, const uint32_t* a, const uint32_t* b) {
  if constexpr (Element<T>::kDType == DType::kBf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

template <class T>
__global__ void ProductReference(const ProductArgs a) {
  const int lane = threadIdx.x, group = lane / 4, pair = lane % 4;
  const int row0 = blockIdx.y * 16, n0 = blockIdx.x * 8;
  // Two elements in the order of the instruction; rows past the end are zeros.
  const auto two = [&](const void* matrix, int row, int rows, int k) {
    if (row >= rows) return 0u;
    return *reinterpret_cast<const uint32_t*>(static_cast<const T*>(matrix) + int64_t{row} * a.k +
                                              k);
  };
  float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int k = 0; k < a.k; k += 16) {
    const int low = k + pair * 2, high = low + 8;
    const uint32_t x[4] = {
        two(a.x, row0 + group, a.rows, low), two(a.x, row0 + group + 8, a.rows, low),
        two(a.x, row0 + group, a.rows, high), two(a.x, row0 + group + 8, a.rows, high)};
    const uint32_t w[2] = {two(a.w, n0 + group, a.n, low), two(a.w, n0 + group, a.n, high)};
    Mma<T>(c, x, w);
  }
  for (int i = 0; i < 4; ++i) {
    const int row = row0 + group + i / 2 * 8, n = n0 + pair * 2 + i % 2;
    if (row >= a.rows || n >= a.n) continue;
    const float y = a.bias != nullptr ? __fadd_rn(c[i], a.bias[n]) : c[i];
    const int64_t at = int64_t{row} * a.n + n;
    if (a.float_out) {
      static_cast<float*>(a.y)[at] = y;
    } else {
      static_cast<T*>(a.y)[at] = Element<T>::Round(y);
    }
  }
}

// Norm (if there is one), rotation and rounding of one paired head, into natural order.
template <class T>
__device__ void NormAndRotate(const T* head, const float* norm, float eps, float inverse_width,
                              int dim, const float* cos, const float* sin, T* to) {
  using E = Element<T>;
  const int half = dim / 2;
  const auto at = [&](int i) { return E::Widen(head[PairedRow(i, half)]); };
  float factor = 0.0f;
  if (norm != nullptr) factor = NormFactor(SumOfSquares(dim, at), inverse_width, eps);
  const auto normed = [&](int i) {
    return norm == nullptr ? at(i) : E::Widen(E::Round(NormValue(at(i), factor, norm[i])));
  };
  for (int i = 0; i < half; ++i) {
    const float a = normed(i), b = normed(i + half);
    to[i] = E::Round(canon::RotateFirst(a, b, cos[i], sin[i]));
    to[i + half] = E::Round(canon::RotateSecond(a, b, cos[i], sin[i]));
  }
}

template <class T>
__global__ void RopeReference(const RopeKvWriteArgs a, float inverse_width) {
  const int heads = a.heads + 2 * a.kv_heads, dim = a.head_dim;
  const int index = blockIdx.x * kThreads + threadIdx.x, row = index / heads, head = index % heads;
  if (row >= a.rows) return;
  const T* from = static_cast<const T*>(a.qkv) + int64_t{index} * dim;
  const int position = a.kv.positions[row], slot = a.kv.kv_slots[row];
  if (position < 0 || position >= a.kv.context || slot < 0 ||
      slot / kBlockTokens >= a.kv.pool_blocks) {
    atomicOr(a.kv.faults + row, kFaultBlockRange);
    return;
  }
  const float* cos = a.kv.cos + int64_t{position} * (dim / 2);
  const float* sin = a.kv.sin + int64_t{position} * (dim / 2);
  const auto place = [&](int kv_head) {
    const int64_t block_head = int64_t{slot / kBlockTokens} * a.kv_heads + kv_head;
    return (block_head * kBlockTokens + slot % kBlockTokens) * dim;
  };
  if (head < a.heads) {
    T* to = static_cast<T*>(a.q) + (int64_t{row} * a.heads + head) * dim;
    NormAndRotate(from, a.q_norm, a.eps, inverse_width, dim, cos, sin, to);
  } else if (head < a.heads + a.kv_heads) {
    T* to = static_cast<T*>(a.kv.keys) + place(head - a.heads);
    NormAndRotate(from, a.k_norm, a.eps, inverse_width, dim, cos, sin, to);
  } else {
    T* to = static_cast<T*>(a.kv.values) + place(head - a.heads - a.kv_heads);
    for (int i = 0; i < dim; ++i) to[i] = from[i];
  }
}

template <class T>
__global__ void SiluMulReference(const SiluMulArgs a) {
  using E = Element<T>;
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= int64_t{a.rows} * a.ffn) return;
  const int64_t row = index / a.ffn, j = index % a.ffn;
  const T* from = static_cast<const T*>(a.gate_up) + row * 2 * a.ffn;
  const float gate = E::Widen(from[PairedRow(j, a.ffn)]);
  const float up = E::Widen(from[PairedRow(j + a.ffn, a.ffn)]);
  static_cast<T*>(a.y)[index] = E::Round(__fmul_rn(Silu(gate), up));
}

float InverseWidth(int width) { return static_cast<float>(1.0 / width); }

}  // namespace

cudaError_t RefRmsNorm(cudaStream_t stream, const RmsNormArgs& args) {
  return WithType(args.dtype, [&](auto zero) {
    RmsNormReference<decltype(zero)>
        <<<Blocks(args.rows), kThreads, 0, stream>>>(args, InverseWidth(args.width));
    return cudaGetLastError();
  });
}

cudaError_t RefProduct(cudaStream_t stream, const ProductArgs& args) {
  if (args.k % 16 != 0) return cudaErrorInvalidValue;
  return WithType(args.dtype, [&](auto zero) {
    const dim3 grid((args.n + 7) / 8, (args.rows + 15) / 16);
    ProductReference<decltype(zero)><<<grid, 32, 0, stream>>>(args);
    return cudaGetLastError();
  });
}

cudaError_t RefRopeKvWrite(cudaStream_t stream, const RopeKvWriteArgs& args) {
  return WithType(args.dtype, [&](auto zero) {
    const int64_t threads = int64_t{args.rows} * (args.heads + 2 * args.kv_heads);
    RopeReference<decltype(zero)>
        <<<Blocks(threads), kThreads, 0, stream>>>(args, InverseWidth(args.head_dim));
    return cudaGetLastError();
  });
}

cudaError_t RefSiluMul(cudaStream_t stream, const SiluMulArgs& args) {
  return WithType(args.dtype, [&](auto zero) {
    SiluMulReference<decltype(zero)>
        <<<Blocks(int64_t{args.rows} * args.ffn), kThreads, 0, stream>>>(args);
    return cudaGetLastError();
  });
}

}  // namespace fathom::kernels::cuda
