// kernels/cuda/attention/prefill_wgmma_consumer.cuh: a warpgroup that computes 64 query rows of a
// tile. A block j of 128 keys has two sub-blocks, a and b; S(j) is its scores. The lists below give
// the order of a consumer's work. In brackets: what the tensor core computes meanwhile. The other
// warpgroup uses the tensor core in the remaining time.
//   Inside a segment: softmax a [P V (j-1, b)] | start P V (j, a), then S(j+1) | exponentials b
//     [P V (j, a)] | start P V (j, b) | wait for S(j+1)
//   Last block of a segment: ... exponentials b [P V (j, a)] | start P V (j, b) and S(j+1) | wait
//     for P V (j, b) | merge the segment (m, l, o) into (M, L, O) [S(j+1)] | wait for S(j+1)
// o and l share one accumulator. A new segment overwrites it with its first product instead of
// adding to it. Each thread keeps its part of O in shared memory, because it uses O only once in
// 512 keys.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/attention/prefill_wgmma_layout.cuh"
#include "kernels/cuda/attention/prefill_wgmma_mma.cuh"
#include "kernels/cuda/attention/prefill_wgmma_softmax.cuh"
#include "kernels/cuda/base/ptx.cuh"

namespace fathom::kernels::cuda::prefill {

// Reads a word of shared memory in lane 0 and gives it to all lanes. Only lane 0 may read it:
// FreeQueries of lane 0 lets the producer overwrite the word.
__device__ __forceinline__ int FromLane0(const volatile int& word) {
  return __shfl_sync(~0u, threadIdx.x % 32 == 0 ? word : 0, 0);
}

// The place of a block in its segment.
enum class Place { kFirst, kInside, kLast };

// The work of a consumer on one tile.
template <class T>
struct Consumer {
  const Shared shared;
  const KernelArgs& args;
  const CUtensorMap* out_map;
  const int consumer, lane, warp;
  const float scale;
  // The low words of the descriptors.
  const uint32_t queries, query_half, keys, values;
  float4* const merged;  // This thread's part of O, by groups of 8 dims.
  // The number of blocks done, over all tiles. Block n uses key stage n % 2 and value slots 2 (n %
  // 2) and 2 (n % 2) + 1.
  uint32_t done;
  const int blocks;       // Blocks of the tile.
  const int full_blocks;  // Blocks before the diagonal.
  const int position;     // Position of the warpgroup's first row.
  // This thread's part of two rows (prefill_wgmma_softmax.cuh says which).
  float scores[64];
  float output[68];  // o, and l twice for each row.
  float rest[kMergedRest];
  float m[2], M[2], L[2];
  float factor[2];  // The factors of the last change of m.
  uint32_t weights[32];

  __device__ __forceinline__ Consumer(const Shared& s, const KernelArgs& a, const CUtensorMap* out,
                                      int index, uint32_t blocks_done, int tile_blocks,
                                      int tile_position)
      : shared(s),
        args(a),
        out_map(out),
        consumer(index),
        lane(threadIdx.x % 32),
        warp(__shfl_sync(~0u, threadIdx.x % 128 / 32, 0)),
        scale(a.scale),
        queries(s.At(QueryUnit(index, 0) * kUnit) >> 4),
        query_half((QueryUnit(index, 1) - QueryUnit(index, 0)) * (kUnit / 16)),
        keys(s.At(kKeys) >> 4),
        values(s.At(kOnes) >> 4),
        merged(reinterpret_cast<float4*>(s.bytes + kStripes + (index * 4 + warp) * kStripeBytes) +
               lane),
        done(blocks_done),
        blocks(tile_blocks),
        full_blocks((tile_position + 1) / kBlockKeys),
        position(tile_position) {
#pragma unroll
    for (int j = 0; j < 2; ++j) m[j] = 0.0f, M[j] = -INFINITY, L[j] = 0.0f;
#pragma unroll
    for (int i = 0; i < 68; ++i) output[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < kMergedRest; ++i) rest[i] = 0.0f;
  }

  // Barriers. The code tests a barrier long before it needs the result, and waits only if the test
  // failed. The branch of the wait also ends a basic block. Without it ptxas would move the waits
  // for wgmma before the exponentials, which would then not overlap with wgmma.
  __device__ __forceinline__ int TestKeys(uint32_t n) const {
    return ptx::BarrierTest(shared.Bar(kKeyFull) + (n & 1) * 8, n >> 1 & 1);
  }
  __device__ __forceinline__ void WaitKeys(uint32_t n, int tested) const {
    if (__builtin_expect(!tested, 0)) {
      ptx::BarrierWait(shared.Bar(kKeyFull) + (n & 1) * 8, n >> 1 & 1);
    }
  }
  __device__ __forceinline__ int TestValues(int half) const {
    return ptx::BarrierTest(shared.Bar(kValueFull) + (done & 1) * 16 + half * 8, done >> 1 & 1);
  }
  __device__ __forceinline__ void WaitValues(int half, int tested) const {
    if (__builtin_expect(!tested, 0)) {
      ptx::BarrierWait(shared.Bar(kValueFull) + (done & 1) * 16 + half * 8, done >> 1 & 1);
    }
  }
  __device__ __forceinline__ void FreeKeys(uint32_t n) {
    HoldScores(scores);
    if (lane == 0) ptx::BarrierArrive(shared.Bar(kKeyFree) + (n & 1) * 8);
  }
  __device__ __forceinline__ void FreeValues(uint32_t n, int half) const {
    if (lane == 0) ptx::BarrierArrive(shared.Bar(kValueFree) + (n & 1) * 16 + half * 8);
  }
  __device__ __forceinline__ void FreeQueries() const {
    if (lane == 0) ptx::BarrierArrive(shared.Bar(kQueryFree + consumer));
  }

  // Starts the GEMM of the scores of block n.
  __device__ __forceinline__ void StartScores(uint32_t n) {
    const uint32_t b = keys + (n & 1) * (kKeyBytes >> 4);
    HoldScores(scores);
    ptx::WgmmaFence();
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      ScoresStep<T>(scores, queries + (k / 4) * query_half + (k % 4) * 2,
                    b + (k / 4) * (2 * kUnit / 16) + (k % 4) * 2, k != 0);
    }
    ptx::WgmmaCommit();
  }
  // Starts output (+)= weights of sub-block `half` x values.
  __device__ __forceinline__ void StartOutput(int half, int add) {
    const uint32_t distance = half ? 3 + (done & 1) * 2 : 1 + (done & 1) * 3;
    const uint32_t b = values + distance * (((kUnit / 16) << 16) - 2 * (kUnit / 16));
    HoldOutput(output);
    ptx::WgmmaFence();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      OutputStep<T>(output, weights + 16 * half + 4 * k, b + k * 128, k ? 1 : add);
    }
    ptx::WgmmaCommit();
  }
  template <int N>
  __device__ __forceinline__ void WaitOutput(uint32_t n, int half) {
    ptx::WgmmaWait<N>();
    HoldOutput(output);
    FreeValues(n, half);
  }

  // Waits for the store of the previous tile, which may still read the stripe.
  __device__ __forceinline__ void DrainStore() const {
    if (lane == 0) ptx::TmaStoreWaitRead();
    __syncwarp();
  }

  __device__ __forceinline__ float4 Merged(int i) const {
    const int r = 4 * (i - kMergedShared);
    return i < kMergedShared ? merged[i * 32]
                             : make_float4(rest[r], rest[r + 1], rest[r + 2], rest[r + 3]);
  }
  // kKeep: writes O back to its place in shared memory; otherwise O stays in `output`.
  template <bool kKeep>
  __device__ __forceinline__ void PutMerged(int i, float4 v) {
    const int r = 4 * (i - kMergedShared);
    if (!kKeep) {
      output[4 * i] = v.x, output[4 * i + 1] = v.y;
      output[4 * i + 2] = v.z, output[4 * i + 3] = v.w;
    } else if (i < kMergedShared) {
      merged[i * 32] = v;
    } else {
      rest[r] = v.x, rest[r + 1] = v.y, rest[r + 2] = v.z, rest[r + 3] = v.w;
    }
  }
  // Merges the finished segment (m, l, o) into (M, L, O). `first`: it is the tile's first segment,
  // so O = 0 * 0 + o.
  template <bool kKeep>
  __device__ __forceinline__ void MergeSegment(bool first) {
    float fa[2], fb[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const MergeFactors f = Merge(&M[j], &L[j], m[j], output[64 + 2 * j], scale);
      fa[j] = f.merged, fb[j] = f.segment;
    }
    if (first) {
      if (!kKeep) return;
      DrainStore();
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const float* o = output + 4 * i;
        PutMerged<kKeep>(i, make_float4(o[0], o[1], o[2], o[3]));
      }
      return;
    }
#pragma unroll
    for (int g = 0; g < 16; g += 8) {
      float4 x[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] = Merged(g + i);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float* o = output + 4 * (g + i);
        PutMerged<kKeep>(g + i,
                         make_float4(__fadd_rn(__fmul_rn(x[i].x, fa[0]), __fmul_rn(o[0], fb[0])),
                                     __fadd_rn(__fmul_rn(x[i].y, fa[0]), __fmul_rn(o[1], fb[0])),
                                     __fadd_rn(__fmul_rn(x[i].z, fa[1]), __fmul_rn(o[2], fb[1])),
                                     __fadd_rn(__fmul_rn(x[i].w, fa[1]), __fmul_rn(o[3], fb[1]))));
      }
    }
  }

  // Masks the scores of tokens after a row's own position.
  __device__ __forceinline__ void MaskDiagonal(int block) {
    const int token = block * kBlockKeys + (lane % 4) * 2;
    const int row_position = position + warp * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      if (token + (i / 4) * 8 + (i & 1) > row_position + ((i >> 1) & 1) * 8) scores[i] = -INFINITY;
    }
  }

  // kMasked: the block may contain the diagonal (with kFirst or kInside; at run time a block may
  // still be the first of its segment). kNext: the block is not the tile's last.
  template <Place kPlace, bool kMasked, bool kNext>
  __device__ __forceinline__ void Block(int block) {
    constexpr bool kLast = kPlace == Place::kLast;
    const bool first = kMasked && !kLast ? block % kSegmentBlocks == 0 : kPlace == Place::kFirst;
    if (kMasked && block >= full_blocks) MaskDiagonal(block);
    float top_a[2], top_b[2], x[32];
    bool moved = false;
    LaneMax(scores, top_a);
    if (first) {
      m[0] = RowMax(top_a[0]);
      m[1] = RowMax(top_a[1]);
    } else {
      moved = MoveMaxima(Exceeds(top_a, m, scale), top_a, m, factor, scale);
    }
    int values_ready = TestValues(0);
    Exponents(scores, x, m, scale);
    Weights<T>(x, weights);
    LaneMax(scores + 32, top_b);
    const bool exceeds_b = Exceeds(top_b, m, scale);
    HoldWeights(weights);
    WaitValues(0, values_ready);
    if (!first) {
      WaitOutput<0>(done - 1, 1);
      if (__builtin_expect(moved, 0)) Rescale(output, factor);
    }
    const int keys_ready = kNext ? TestKeys(done + 1) : 0;
    StartOutput(0, !first);
    if (!kNext && position + kConsumerRows - 1 < block * kBlockKeys + 64) {
      // This half is completely masked.
      WaitValues(1, 0);
      FreeQueries();
      WaitOutput<0>(done, 0);
      FreeValues(done, 1);
      ++done;
      return;
    }
    moved = MoveMaxima(exceeds_b, top_b, m, factor, scale);
    Exponents(scores + 32, x, m, scale);
    HoldExponents(x);
    FinishBlock<kLast, kNext>(block, x, moved, keys_ready);
  }

  // The part of Block after the arguments of sub-block b's exponentials are known.
  template <bool kLast, bool kNext>
  __device__ __forceinline__ void FinishBlock(int block, float* x, bool moved, int keys_ready) {
    int values_ready = 0;
    if (kNext && !kLast) {
      WaitKeys(done + 1, keys_ready);
      values_ready = TestValues(1);
      StartScores(done + 1);
    }
    if (!kNext) FreeQueries();
    HoldExponents(x);
    if (!kNext || kLast) values_ready = TestValues(1);
    Weights<T>(x, weights + 16);
    HoldWeights(weights + 16);
    WaitValues(1, values_ready);
    WaitOutput<kNext && !kLast ? 1 : 0>(done, 0);
    if (__builtin_expect(moved, 0)) Rescale(output, factor);
    if (kLast) WaitKeys(done + 1, keys_ready);
    StartOutput(1, 1);
    if (kLast) {
      StartScores(done + 1);
      WaitOutput<1>(done, 1);
      MergeSegment<true>(block < kSegmentBlocks);
      ptx::WgmmaWait<0>();
      FreeKeys(done + 1);
    } else if (kNext) {
      ptx::WgmmaWait<1>();
      FreeKeys(done + 1);
    } else {
      WaitOutput<0>(done, 1);
    }
    ++done;
  }

  // Computes all blocks of the tile; the result is in `output`.
  __device__ __forceinline__ void Attend() {
    WaitKeys(done, 0);
    StartScores(done);
    ptx::WgmmaWait<0>();
    FreeKeys(done);
    int block = 0;
#pragma unroll 1
    while (block + kSegmentBlocks < blocks && block + kSegmentBlocks <= full_blocks) {
      Block<Place::kFirst, false, true>(block);
#pragma unroll 1
      for (int i = 1; i < kSegmentBlocks - 1; ++i) Block<Place::kInside, false, true>(block + i);
      Block<Place::kLast, false, true>(block + kSegmentBlocks - 1);
      block += kSegmentBlocks;
    }
#pragma unroll 1
    for (; block < blocks - 1; ++block) {
      if (block % kSegmentBlocks != kSegmentBlocks - 1) {
        Block<Place::kInside, true, true>(block);
      } else {
        Block<Place::kLast, true, true>(block);
      }
    }
    Block<Place::kInside, true, false>(blocks - 1);
    MergeSegment<false>(blocks <= kSegmentBlocks);
    Normalize(output, L);
  }

  // Rounds the warp's 16 rows into its stripe of shared memory (O is no longer needed) and stores
  // them. The store is one TMA; if the chunk ends among the 16 rows, they are stored row by row,
  // because the rows after the chunk belong to another sequence.
  __device__ __forceinline__ void Store(int turn) {
    volatile const ConsumerTile* tile = shared.Tile(consumer, turn & 1);
    const int row = FromLane0(tile->row) + warp * 16, rows = FromLane0(tile->rows) - warp * 16,
              head = FromLane0(tile->head);
    DrainStore();
    const uint32_t stripe = shared.At(kStripes + (consumer * 4 + warp) * kStripeBytes);
    const uint32_t r = lane % 16;
#pragma unroll
    for (int i = 0; i < 16; i += 2) {
      const uint32_t piece = i + lane / 16;
      const float* o = output + 4 * i;
      ptx::StoreMatrix4(stripe + (piece / 8) * 2048 + r * 128 + ((piece % 8) ^ (r % 8)) * 16,
                        Element<T>::Pack(o[0], o[1]), Element<T>::Pack(o[2], o[3]),
                        Element<T>::Pack(o[4], o[5]), Element<T>::Pack(o[6], o[7]));
    }
    if (rows >= 16) {
      ptx::FenceAsyncProxy();
      __syncwarp();
      if (lane == 0) {
        ptx::TmaStore3d(out_map, stripe, 0, head, row);
        ptx::TmaStore3d(out_map, stripe + 2048, 64, head, row);
        ptx::TmaStoreCommit();
      }
    } else if (rows > 0) {
      StoreRows(row, rows, head);
    }
  }
  __device__ __forceinline__ void StoreRows(int row, int rows, int head) {
    __syncwarp();
    const unsigned char* stripe = shared.bytes + kStripes + (consumer * 4 + warp) * kStripeBytes;
    auto* out = static_cast<uint4*>(args.out);
#pragma unroll 1
    for (int i = lane; i < rows * 16; i += 32) {
      const int r = i / 16, piece = i % 16;
      out[(static_cast<int64_t>(row + r) * args.heads + head) * 16 + piece] =
          *reinterpret_cast<const uint4*>(stripe + (piece / 8) * 2048 + r * 128 +
                                          ((piece % 8) ^ (r % 8)) * 16);
    }
    __syncwarp();
  }
};

template <class T>
__device__ __forceinline__ void Consume(const Shared& shared, const KernelArgs& args,
                                        const CUtensorMap* out_map, int index) {
  uint32_t done = 0;
  for (int turn = 0;; ++turn) {
    ptx::BarrierWait(shared.Bar(kQueryFull + index), turn & 1);
    volatile const ConsumerTile* tile = shared.Tile(index, turn & 1);
    const int blocks = FromLane0(tile->blocks);
    if (blocks == 0) break;
    Consumer<T> consumer(shared, args, out_map, index, done, blocks, FromLane0(tile->position));
    consumer.Attend();
    consumer.Store(turn);
    done = consumer.done;
  }
  if (threadIdx.x % 32 == 0) ptx::TmaStoreWait();
}

}  // namespace fathom::kernels::cuda::prefill
