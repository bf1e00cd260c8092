// Prefill attention by mma.sync: sm_80 and later, head_dim 64 and 128. A thread block computes 64
// rows of one head of one chunk, each warp 16 of them.
#include "kernels/cuda/attention/attention_common.cuh"
#include "kernels/cuda/attention/prefill_attention.h"

namespace fathom::kernels::cuda {
namespace {

using attention::CopyPage;
using attention::kPageBytes;
using attention::kSegmentBlocks;
using attention::kThreads;
using attention::Swizzled;

constexpr int kTileRows = 64;
constexpr int kStages = 2;

// The part of PrefillAttentionArgs that the kernel needs on the device.
struct Work {
  const void *q, *keys, *values;
  const int32_t* block_tables;
  const PrefillChunk* chunks;
  int32_t* faults;
  void* out;
  int chunk_count, heads, kv_heads, table_stride, pool_blocks;
};

struct Tile {
  PrefillChunk chunk;
  int row0 = 0;  // The first row, counted in the chunk.
};

// Finds tile `index` of all chunks. In each chunk the last rows come first, because they have the
// most keys.
__device__ Tile FindTile(const Work& work, int index) {
  for (int i = 0; i < work.chunk_count; ++i) {
    const PrefillChunk chunk = work.chunks[i];
    const int tiles = (chunk.rows + kTileRows - 1) / kTileRows;
    if (index < tiles) return {chunk, (tiles - 1 - index) * kTileRows};
    index -= tiles;
  }
  return {};
}

template <class T, int kHeadDim>
class PrefillTile {
  static constexpr int kSteps = kHeadDim / 16;
  static constexpr int kDims = kHeadDim / 8;  // Tiles of 8 dimensions.
  static constexpr int kStageBytes = 2 * kPageBytes<kHeadDim>;

 public:
  static constexpr int kSharedBytes = kStages * kStageBytes + kTileRows * kHeadDim * 2;

  __device__ PrefillTile(const Work& work, const Tile& tile, uint32_t base, float scale)
      : w_(work),
        tile_(tile),
        base_(base),
        scale_(scale),
        head_(blockIdx.y),
        kv_head_(blockIdx.y / (work.heads / work.kv_heads)),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32) {}

  __device__ void Compute() {
    const int last = tile_.chunk.position_begin + min(tile_.chunk.rows, tile_.row0 + kTileRows) - 1;
    const int blocks = last / kBlockTokens + 1;
    m_[0] = m_[1] = top_[0] = top_[1] = -INFINITY;
    LoadQuery();
#pragma unroll
    for (int block = 0; block < kStages - 1; ++block) Load(block, blocks, last);
    for (int block = 0; block < blocks; ++block) {
      Load(block + kStages - 1, blocks, last);
      ptx::CopyAsyncWait<kStages - 1>();
      __syncthreads();
      if (block == 0) QueryToRegisters();
      const uint32_t keys = base_ + block % kStages * kStageBytes;
      float scores[8][4];
      Scores(keys, block, scores);
      Rescale(scores);
      Accumulate(keys + kPageBytes<kHeadDim>, scores);
      if (block % kSegmentBlocks == kSegmentBlocks - 1 || block == blocks - 1) MergeSegment();
      __syncthreads();
    }
    Write();
  }

 private:
  __device__ int Row(int j) const { return tile_.row0 + warp_ * 16 + lane_ / 4 + j * 8; }

  __device__ void LoadQuery() {
    const T* const q = static_cast<const T*>(w_.q);
    constexpr int kPieces = kHeadDim / 8;
#pragma unroll
    for (int i = 0; i < kTileRows * kPieces / kThreads; ++i) {
      const int at = i * kThreads + threadIdx.x, row = at / kPieces, piece = at % kPieces;
      const int in_chunk = min(tile_.row0 + row, tile_.chunk.rows - 1);
      ptx::CopyAsync16(
          base_ + kStages * kStageBytes + Swizzled<kHeadDim>(row, piece),
          q + (int64_t{tile_.chunk.row_begin + in_chunk} * w_.heads + head_) * kHeadDim + piece * 8,
          16);
    }
  }

  __device__ void Load(int block, int blocks, int last) {
    if (block < blocks) {
      const int page = w_.block_tables[int64_t{tile_.chunk.table_row} * w_.table_stride + block];
      const bool valid = !kRowFaults || (page >= 0 && page < w_.pool_blocks);
      if (!valid && threadIdx.x < kTileRows &&
          tile_.row0 + static_cast<int>(threadIdx.x) < tile_.chunk.rows) {
        atomicOr(w_.faults + tile_.chunk.row_begin + tile_.row0 + threadIdx.x, kFaultBlockRange);
      }
      const int64_t offset =
          (int64_t{valid ? page : 0} * w_.kv_heads + kv_head_) * (kBlockTokens * kHeadDim);
      const int tokens = valid ? min(last + 1 - block * kBlockTokens, kBlockTokens) : 0;
      const uint32_t stage = base_ + block % kStages * kStageBytes;
      CopyPage<kHeadDim>(stage, static_cast<const T*>(w_.keys) + offset, tokens);
      CopyPage<kHeadDim>(stage + kPageBytes<kHeadDim>, static_cast<const T*>(w_.values) + offset,
                         tokens);
    }
    ptx::CopyAsyncCommit();
  }

  __device__ void QueryToRegisters() {
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      ptx::LoadMatrix4(query_[k],
                       base_ + kStages * kStageBytes +
                           Swizzled<kHeadDim>(warp_ * 16 + lane_ % 16, k * 2 + lane_ / 16));
    }
  }

  __device__ void Scores(uint32_t keys, int block, float (*scores)[4]) {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[n][i] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        uint32_t b[4];
        ptx::LoadMatrix4(b, keys + Swizzled<kHeadDim>(n * 16 + lane_ / 16 * 8 + lane_ % 8,
                                                      k * 2 + lane_ / 8 % 2));
        ptx::Mma16816<T>(scores[2 * n], query_[k], b);
        ptx::Mma16816<T>(scores[2 * n + 1], query_[k], b + 2);
      }
    }
    const int position = tile_.chunk.position_begin + Row(0);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = block * kBlockTokens + n * 8 + lane_ % 4 * 2 + i % 2;
        if (token > position + i / 2 * 8) scores[n][i] = -INFINITY;
      }
    }
  }

  __device__ void Rescale(const float (*scores)[4]) {
    float factors[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float x = -INFINITY;
#pragma unroll
      for (int n = 0; n < 8; ++n) x = fmaxf(x, fmaxf(scores[n][2 * j], scores[n][2 * j + 1]));
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
      factors[j] = MoveMax(&m_[j], x, scale_);
    }
    // A factor of 1 changes no bit, so the multiplication may be skipped.
    if (!__any_sync(~0u, factors[0] != 1.0f || factors[1] != 1.0f)) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      l_[i] = __fmul_rn(l_[i], factors[i / 2]);
#pragma unroll
      for (int d = 0; d < kDims; ++d) o_[d][i] = __fmul_rn(o_[d][i], factors[i / 2]);
    }
  }

  __device__ void Accumulate(uint32_t values, const float (*scores)[4]) {
    constexpr uint32_t kOnes = Element<T>::kOnes;
    const uint32_t ones[2] = {kOnes, kOnes};
    const float shift[2] = {__fmul_rn(m_[0], scale_), __fmul_rn(m_[1], scale_)};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      float p[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int j = i % 4 / 2;
        // A row that attends to no token of this block: all of its weights are zero.
        p[i] = m_[j] == -INFINITY
                   ? 0.0f
                   : Ex2(canon::Fma(scores[2 * k + i / 4][i % 4], scale_, -shift[j]));
      }
      const uint32_t a[4] = {Element<T>::Pack(p[0], p[1]), Element<T>::Pack(p[2], p[3]),
                             Element<T>::Pack(p[4], p[5]), Element<T>::Pack(p[6], p[7])};
#pragma unroll
      for (int n = 0; n < kDims / 2; ++n) {
        uint32_t b[4];
        ptx::LoadMatrix4Transposed(
            b, values +
                   Swizzled<kHeadDim>(k * 16 + lane_ / 8 % 2 * 8 + lane_ % 8, n * 2 + lane_ / 16));
        ptx::Mma16816<T>(o_[2 * n], a, b);
        ptx::Mma16816<T>(o_[2 * n + 1], a, b + 2);
      }
      ptx::Mma16816<T>(l_, a, ones);
    }
  }

  __device__ void MergeSegment() {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (m_[j] != -INFINITY) {
        const MergeFactors f = Merge(&top_[j], &total_[j], m_[j], l_[2 * j], scale_);
#pragma unroll
        for (int d = 0; d < kDims; ++d) {
#pragma unroll
          for (int i = 2 * j; i < 2 * j + 2; ++i) {
            merged_[d][i] =
                __fadd_rn(__fmul_rn(merged_[d][i], f.merged), __fmul_rn(o_[d][i], f.segment));
          }
        }
      }
      m_[j] = -INFINITY;
      l_[2 * j] = l_[2 * j + 1] = 0.0f;
    }
#pragma unroll
    for (int d = 0; d < kDims; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o_[d][i] = 0.0f;
    }
  }

  __device__ void Write() {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (Row(j) >= tile_.chunk.rows) continue;
      T* const out = static_cast<T*>(w_.out) +
                     (int64_t{tile_.chunk.row_begin + Row(j)} * w_.heads + head_) * kHeadDim +
                     lane_ % 4 * 2;
#pragma unroll
      for (int d = 0; d < kDims; ++d) {
        *reinterpret_cast<uint32_t*>(out + d * 8) = Element<T>::Pack(
            __fdiv_rn(merged_[d][2 * j], total_[j]), __fdiv_rn(merged_[d][2 * j + 1], total_[j]));
      }
    }
  }

  const Work& w_;
  const Tile tile_;
  const uint32_t base_;
  const float scale_;
  const int head_, kv_head_, warp_, lane_;
  uint32_t query_[kSteps][4];
  float o_[kDims][4] = {};       // The sum of the current segment.
  float merged_[kDims][4] = {};  // The merged segments before it.
  float l_[4] = {};
  float m_[2], top_[2];
  float total_[2] = {};
};

template <class T, int kHeadDim>
__global__ void __launch_bounds__(kThreads) PrefillGenericKernel(const Work work, float scale) {
  extern __shared__ __align__(128) unsigned char shared[];
  WaitForPrevious();
  LetNextStart();
  const Tile tile = FindTile(work, blockIdx.x);
  PrefillTile<T, kHeadDim>(work, tile, ptx::SharedAddress(shared), scale).Compute();
}

template <class T, int kHeadDim>
cudaError_t LaunchGeneric(const LaunchContext& context, const PrefillAttentionArgs& args) {
  const Work work{args.q,
                  args.keys,
                  args.values,
                  args.block_tables,
                  args.device_chunks,
                  args.faults,
                  args.out,
                  static_cast<int>(args.chunks.size()),
                  args.heads,
                  args.kv_heads,
                  args.table_stride,
                  args.pool_blocks};
  int tiles = 0;
  for (const PrefillChunk& chunk : args.chunks) tiles += (chunk.rows + kTileRows - 1) / kTileRows;
  if (tiles == 0) return cudaSuccess;
  const auto kernel = PrefillGenericKernel<T, kHeadDim>;
  constexpr int kBytes = PrefillTile<T, kHeadDim>::kSharedBytes;
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (prepared != cudaSuccess) return prepared;
  return Launch(context, dim3(tiles, args.heads), dim3(kThreads), kBytes, kernel, work,
                canon::AttentionScale(kHeadDim));
}

}  // namespace

cudaError_t PrefillAttentionGeneric(const LaunchContext& context,
                                    const PrefillAttentionArgs& args) {
  if (args.kv_heads < 1 || args.heads % args.kv_heads != 0) return cudaErrorInvalidValue;
  return WithType(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (args.head_dim == 128) return LaunchGeneric<T, 128>(context, args);
    if (args.head_dim == 64) return LaunchGeneric<T, 64>(context, args);
    return cudaErrorInvalidValue;
  });
}

}  // namespace fathom::kernels::cuda
