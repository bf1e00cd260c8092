#include "kernels/cuda/decode_attention.h"

#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/decode_attention_config.h"

namespace fathom::kernels::cuda {
namespace {

using attention::CopyPage;
using attention::kPageBytes;
using attention::kSegmentBlocks;
using attention::kThreads;
using attention::Swizzled;

constexpr int kStages = kDecodeStages;
static_assert(kThreads == kDecodeThreads);

template <int kHeadDim, int kColumns>
struct Shared {
  static constexpr int kStageBytes = DecodeStageBytes(kHeadDim);
  static_assert(kStageBytes == 2 * kPageBytes<kHeadDim>);
  static constexpr int kQuery = DecodeQueryAt(kHeadDim);
  static constexpr int kMaxima = DecodeMaximaAt(kHeadDim, kColumns);
  static constexpr int kWeights = DecodeWeightsAt(kHeadDim, kColumns);
  static constexpr int kBytes = DecodeSharedBytes(kHeadDim, kColumns);
};

// A segment of one kv head of one row. The four warps take 16 tokens each of a page's scores, and a
// quarter of the dimensions each of P V. Columns of the products are the query heads of the group.
template <class T, int kHeadDim, int kColumns>
class Segment {
  using S = Shared<kHeadDim, kColumns>;
  static constexpr int kSteps = kHeadDim / 16;  // Of a score's product.
  static constexpr int kColumnTiles = kColumns / 8;
  static constexpr int kDimTiles = kHeadDim / 64;  // Of 16 dimensions a warp.

 public:
  __device__ Segment(const DecodeAttentionArgs& args, unsigned char* shared, float scale)
      : a_(args),
        shared_(shared),
        base_(ptx::SharedAddress(shared)),
        scale_(scale),
        row_(blockIdx.z),
        head_(blockIdx.y),
        group_(args.heads / args.kv_heads),
        length_(args.lengths[blockIdx.z]),
        begin_(blockIdx.x * canon::kSegmentTokens),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32) {}

  __device__ bool Exists() const { return begin_ < length_; }

  // The first page, if it is one of earlier steps: of lengths, tables and such pages the kernels
  // before write nothing.
  __device__ bool LoadEarly() {
    if (begin_ + kBlockTokens >= length_) return false;
    Load(0, 1);
    return true;
  }

  __device__ void Compute(bool has_first) {
    const int blocks = min(kSegmentBlocks, (length_ - begin_ + kBlockTokens - 1) / kBlockTokens);
    LoadQuery();
    Load(0, has_first ? 0 : blocks);
#pragma unroll
    for (int block = 1; block < kStages - 1; ++block) Load(block, blocks);
    for (int block = 0; block < blocks; ++block) {
      Load(block + kStages - 1, blocks);
      ptx::CopyAsyncWait<kStages - 1>();
      __syncthreads();
      if (block == 0) QueryToRegisters();
      const uint32_t stage = base_ + block % kStages * S::kStageBytes;
      float scores[kColumnTiles][4];
      float factors[kColumnTiles][2];
      Scores(stage, block, scores);
      MoveMaxima(block, scores, factors);
      Weights(scores);
      __syncthreads();
      Accumulate(stage + kPageBytes<kHeadDim>, factors);
      __syncthreads();
    }
  }

  // Of a row with one segment: merged and written from registers.
  __device__ void WriteOnly() {
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int column = Column(c, j);
        if (column >= group_) continue;
        float top = -INFINITY, total = 0;
        const MergeFactors f = Merge(&top, &total, m_[c][j], l_[c][j], scale_);
#pragma unroll
        for (int t = 0; t < kDimTiles; ++t) {
#pragma unroll
          for (int i = j; i < 4; i += 2) {
            const float o = __fadd_rn(__fmul_rn(0.0f, f.merged), __fmul_rn(o_[c][t][i], f.segment));
            Out(column)[Dim(t, i)] = Element<T>::Round(__fdiv_rn(o, total));
          }
        }
      }
    }
  }

  __device__ void WritePartial() {
    const int64_t unit =
        int64_t{a_.segment_begin[row_] + static_cast<int>(blockIdx.x)} * a_.heads + head_ * group_;
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int column = Column(c, j);
        if (column >= group_) continue;
#pragma unroll
        for (int t = 0; t < kDimTiles; ++t) {
#pragma unroll
          for (int i = j; i < 4; i += 2) {
            a_.partial_o[(unit + column) * kHeadDim + Dim(t, i)] = o_[c][t][i];
          }
        }
        if (warp_ == 0 && lane_ < 4) {
          a_.partial_ml[(unit + column) * 2] = m_[c][j];
          a_.partial_ml[(unit + column) * 2 + 1] = l_[c][j];
        }
      }
    }
  }

  // Whether this is the row's last block to write: then all partials are there, and the counter is
  // as the next launch wants it.
  __device__ bool IsLast() {
    __shared__ int before;
    const int segments = Segments();
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      int32_t* const arrived = a_.arrived + row_ * a_.kv_heads + head_;
      before = atomicAdd(arrived, 1);
      if (before == segments - 1) *arrived = 0;
    }
    __syncthreads();
    __threadfence();
    return before == segments - 1;
  }

  // All segments of the row in ascending order.
  __device__ void MergeAll() {
    const int segments = Segments();
    const int64_t first = int64_t{a_.segment_begin[row_]} * a_.heads + head_ * group_;
    for (int at = threadIdx.x; at < group_ * kHeadDim; at += kThreads) {
      const int column = at / kHeadDim, dim = at % kHeadDim;
      float top = -INFINITY, total = 0, o = 0;
      for (int s = 0; s < segments; ++s) {
        const int64_t unit = first + int64_t{s} * a_.heads + column;
        const float m = __ldcg(a_.partial_ml + unit * 2);
        const float l = __ldcg(a_.partial_ml + unit * 2 + 1);
        const MergeFactors f = Merge(&top, &total, m, l, scale_);
        o = __fadd_rn(__fmul_rn(o, f.merged),
                      __fmul_rn(__ldcg(a_.partial_o + unit * kHeadDim + dim), f.segment));
      }
      Out(column)[dim] = Element<T>::Round(__fdiv_rn(o, total));
    }
  }

  __device__ int Segments() const {
    return (length_ + canon::kSegmentTokens - 1) / canon::kSegmentTokens;
  }

 private:
  __device__ int Column(int c, int j) const { return c * 8 + lane_ % 4 * 2 + j; }
  __device__ int Dim(int t, int i) const {
    return (warp_ * kDimTiles + t) * 16 + lane_ / 4 + i / 2 * 8;
  }
  __device__ T* Out(int column) const {
    return static_cast<T*>(a_.out) +
           (int64_t{row_} * a_.heads + head_ * group_ + column) * kHeadDim;
  }

  __device__ void LoadQuery() {
    const T* const q =
        static_cast<const T*>(a_.q) + (int64_t{row_} * a_.heads + head_ * group_) * kHeadDim;
    for (int at = threadIdx.x; at < kColumns * kHeadDim / 8; at += kThreads) {
      const int column = at / (kHeadDim / 8), piece = at % (kHeadDim / 8);
      ptx::CopyAsync16(base_ + S::kQuery + Swizzled<kHeadDim>(column, piece),
                       q + min(column, group_ - 1) * kHeadDim + piece * 8,
                       column < group_ ? 16 : 0);
    }
  }

  __device__ void Load(int block, int blocks) {
    if (block < blocks) {
      const int page =
          a_.block_tables[int64_t{row_} * a_.table_stride + blockIdx.x * kSegmentBlocks + block];
      const bool valid = !kRowFaults || (page >= 0 && page < a_.pool_blocks);
      if (!valid && threadIdx.x == 0) atomicOr(a_.faults + row_, kFaultBlockRange);
      const int64_t offset =
          (int64_t{valid ? page : 0} * a_.kv_heads + head_) * (kBlockTokens * kHeadDim);
      const int tokens = valid ? min(length_ - begin_ - block * kBlockTokens, kBlockTokens) : 0;
      const uint32_t stage = base_ + block % kStages * S::kStageBytes;
      CopyPage<kHeadDim>(stage, static_cast<const T*>(a_.keys) + offset, tokens);
      CopyPage<kHeadDim>(stage + kPageBytes<kHeadDim>, static_cast<const T*>(a_.values) + offset,
                         tokens);
    }
    ptx::CopyAsyncCommit();
  }

  __device__ void QueryToRegisters() {
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int k = 0; k < kSteps; k += 2) {
        uint32_t r[4];
        ptx::LoadMatrix4(
            r, base_ + S::kQuery + Swizzled<kHeadDim>(c * 8 + lane_ % 8, k * 2 + lane_ / 8));
        query_[c][k][0] = r[0], query_[c][k][1] = r[1];
        query_[c][k + 1][0] = r[2], query_[c][k + 1][1] = r[3];
      }
    }
  }

  // scores[c][i]: token lane / 4 (+ 8 for i >= 2) of this warp's 16, column of i % 2.
  __device__ void Scores(uint32_t keys, int block, float (*scores)[4]) {
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[c][i] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      uint32_t a[4];
      ptx::LoadMatrix4(a, keys + Swizzled<kHeadDim>(warp_ * 16 + lane_ % 16, k * 2 + lane_ / 16));
#pragma unroll
      for (int c = 0; c < kColumnTiles; ++c) {
        ptx::Mma16816<T>(scores[c], a, query_[c][k]);
      }
    }
    const int token = begin_ + block * kBlockTokens + warp_ * 16 + lane_ / 4;
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (token + i / 2 * 8 >= length_) scores[c][i] = -INFINITY;
      }
    }
  }

  __device__ void MoveMaxima(int block, const float (*scores)[4], float (*factors)[2]) {
    auto* const maxima = reinterpret_cast<float*>(shared_ + S::kMaxima) + block % 2 * 4 * kColumns;
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float x = fmaxf(scores[c][j], scores[c][j + 2]);
#pragma unroll
        for (int lanes = 4; lanes < 32; lanes *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
        if (lane_ < 4) maxima[warp_ * kColumns + Column(c, j)] = x;
      }
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float* const x = maxima + Column(c, j);
        factors[c][j] = MoveMax(
            &m_[c][j], fmaxf(fmaxf(x[0], x[kColumns]), fmaxf(x[2 * kColumns], x[3 * kColumns])),
            scale_);
      }
    }
  }

  __device__ void Weights(const float (*scores)[4]) {
    auto* const weights = reinterpret_cast<T*>(shared_ + S::kWeights);
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float p = Ex2(canon::Fma(scores[c][i], scale_, -__fmul_rn(m_[c][i % 2], scale_)));
        weights[Column(c, i % 2) * kDecodeWeightStride + warp_ * 16 + lane_ / 4 + i / 2 * 8] =
            Element<T>::Round(p);
      }
    }
  }

  // o and l of the dimensions of this warp, 16 tokens a step, ascending.
  __device__ void Accumulate(uint32_t values, const float (*factors)[2]) {
    const auto* const weights = reinterpret_cast<const T*>(shared_ + S::kWeights);
    constexpr uint32_t kOnes = Element<T>::kOnes;
    const uint32_t ones[4] = {kOnes, kOnes, kOnes, kOnes};
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        l_[c][i] = __fmul_rn(l_[c][i], factors[c][i % 2]);
#pragma unroll
        for (int t = 0; t < kDimTiles; ++t) {
          o_[c][t][i] = __fmul_rn(o_[c][t][i], factors[c][i % 2]);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kBlockTokens / 16; ++k) {
      uint32_t v[kDimTiles][4];  // V^T: rows are dimensions, columns tokens.
#pragma unroll
      for (int t = 0; t < kDimTiles; ++t) {
        const int piece = (warp_ * kDimTiles + t) * 2 + lane_ / 8 % 2;
        ptx::LoadMatrix4Transposed(
            v[t], values + Swizzled<kHeadDim>(k * 16 + lane_ / 16 * 8 + lane_ % 8, piece));
      }
#pragma unroll
      for (int c = 0; c < kColumnTiles; ++c) {
        const T* const p =
            weights + (c * 8 + lane_ / 4) * kDecodeWeightStride + k * 16 + lane_ % 4 * 2;
        const uint32_t b[2] = {*reinterpret_cast<const uint32_t*>(p),
                               *reinterpret_cast<const uint32_t*>(p + 8)};
#pragma unroll
        for (int t = 0; t < kDimTiles; ++t) ptx::Mma16816<T>(o_[c][t], v[t], b);
        ptx::Mma16816<T>(l_[c], ones, b);
      }
    }
  }

  const DecodeAttentionArgs& a_;
  unsigned char* const shared_;
  const uint32_t base_;
  const float scale_;
  const int row_, head_, group_, length_, begin_, warp_, lane_;
  uint32_t query_[kColumnTiles][kSteps][2];
  float m_[kColumnTiles][2] = {};
  float o_[kColumnTiles][kDimTiles][4] = {};
  float l_[kColumnTiles][4] = {};

 public:
  __device__ void Begin() {
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) m_[c][0] = m_[c][1] = -INFINITY;
  }
};

template <class T, int kHeadDim>
__device__ void ZeroRow(const DecodeAttentionArgs& a) {
  T* const out = static_cast<T*>(a.out) + int64_t{blockIdx.z} * a.heads * kHeadDim;
  const int group = a.heads / a.kv_heads;
  for (int i = threadIdx.x; i < group * kHeadDim; i += kThreads) {
    out[blockIdx.y * group * kHeadDim + i] = Element<T>::Round(0.0f);
  }
}

template <class T, int kHeadDim, int kColumns>
__global__ void __launch_bounds__(kThreads)
    DecodeAttentionKernel(const DecodeAttentionArgs a, float scale) {
  extern __shared__ __align__(128) unsigned char shared[];
  LetNextStart();
  Segment<T, kHeadDim, kColumns> segment(a, shared, scale);
  const bool has_first = segment.Exists() && segment.LoadEarly();
  WaitForPrevious();
  if (!segment.Exists()) {
    if (blockIdx.x == 0) ZeroRow<T, kHeadDim>(a);  // A padding row.
    return;
  }
  segment.Begin();
  segment.Compute(has_first);
  if (segment.Segments() == 1) {
    segment.WriteOnly();
    return;
  }
  segment.WritePartial();
  if (segment.IsLast()) segment.MergeAll();
}

template <class T, int kHeadDim, int kColumns>
cudaError_t LaunchDecode(const LaunchContext& context, const DecodeAttentionArgs& a) {
  const auto kernel = DecodeAttentionKernel<T, kHeadDim, kColumns>;
  constexpr int kBytes = Shared<kHeadDim, kColumns>::kBytes;
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (prepared != cudaSuccess) return prepared;
  return Launch(context, dim3(a.max_segments, a.kv_heads, a.rows), dim3(kThreads), kBytes, kernel,
                a, canon::AttentionScale(kHeadDim));
}

}  // namespace

cudaError_t DecodeAttention(const LaunchContext& context, const DecodeAttentionArgs& args) {
  if (args.rows == 0) return cudaSuccess;
  const auto config = DecodeAttentionPickConfig(args.heads, args.kv_heads, args.head_dim);
  if (!config || args.max_segments < 1) return cudaErrorInvalidValue;
  return WithType(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (config->head_dim == 128) {
      return config->columns == 8 ? LaunchDecode<T, 128, 8>(context, args)
                                  : LaunchDecode<T, 128, 16>(context, args);
    }
    return config->columns == 8 ? LaunchDecode<T, 64, 8>(context, args)
                                : LaunchDecode<T, 64, 16>(context, args);
  });
}

}  // namespace fathom::kernels::cuda
