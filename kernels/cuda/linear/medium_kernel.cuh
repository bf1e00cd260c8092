// kernels/cuda/linear/medium_kernel.cuh: the kernel of kernels/cuda/linear/medium.h. Warpgroups 0
// to kRowGroups - 1 multiply, 64 rows of x each. The last two warps load the weights and the rows
// of x into one ring of stages each. The ring of weights is deep, because weights come from memory;
// x is in L2. A stage holds `kChunk` elements of k: kChunk / 64 columns of kTile weight rows, or as
// many columns of 64 * kRowGroups rows of x. A thread block loads its own weight rows and its share
// of x, which it sends to all thread blocks of its cluster. A stage of x may be overwritten only
// when every thread block of the cluster has released it.
#pragma once

#include "kernels/cuda/base/ptx.cuh"
#include "kernels/cuda/linear/medium_mma.cuh"

namespace fathom::kernels::cuda::medium {

struct Geometry {
  int rows = 0;    // Rows of x.
  int n = 0;       // Weight rows.
  int chunks = 0;  // Chunks of k.
  int passes = 0;  // Tiles of this thread block; they are `grid` tiles apart.
  int w_stages = 0;
  int x_stages = 0;
};

template <int kTile, int kRowGroups, int kChunk>
struct Stage {
  static constexpr int kColumns = kChunk / 64;
  static constexpr int kRows = 64 * kRowGroups;
  static constexpr int kWColumnBytes = kTile * 128;
  static constexpr int kXColumnBytes = kRows * 128;
  static constexpr int kWBytes = kColumns * kWColumnBytes;
  static constexpr int kXBytes = kColumns * kXColumnBytes;
};

// The stages in shared memory and a position in them.
struct Ring {
  uint32_t base = 0, full = 0, empty = 0;
  int stages = 0, stage = 0, parity = 0;
  __device__ __forceinline__ void Next() {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
  __device__ __forceinline__ uint32_t Full() const { return full + 8 * stage; }
  __device__ __forceinline__ uint32_t Empty() const { return empty + 8 * stage; }
  // The wait of the warp that loads. In the first round it does not wait.
  __device__ __forceinline__ void WaitEmpty() const { ptx::BarrierWait(Empty(), parity ^ 1); }
  __device__ __forceinline__ void WaitFull() const { ptx::BarrierWait(Full(), parity); }
};

// The first weight row that a tile loads. The last tile also loads rows that another tile stores,
// because TMA takes longer for rows that do not exist.
FATHOM_DEVICE int FetchedRow(int first, int tile_rows, int n) {
  return max(0, min(first, n - tile_rows));
}

// Runs in one lane of a warp. Weights do not depend on the previous kernel, so their ring is filled
// while that kernel still runs.
template <class S>
FATHOM_DEVICE void FetchWeights(const CUtensorMap* map, const Geometry& g, int tile_rows,
                                Ring ring) {
  for (int pass = 0; pass < g.passes; ++pass) {
    const int first = static_cast<int>(blockIdx.x + pass * gridDim.x) * tile_rows;
    const int row = FetchedRow(first, tile_rows, g.n);
    for (int chunk = 0; chunk < g.chunks; ++chunk, ring.Next()) {
      ring.WaitEmpty();
      ptx::BarrierArriveExpect(ring.Full(), S::kWBytes);
      ptx::TmaLoad3d(ring.base + ring.stage * S::kWBytes, map, ring.Full(), 0, row,
                     chunk * S::kColumns);
    }
  }
}

// Runs in one lane of another warp, after all thread blocks of the cluster have started.
template <class S>
FATHOM_DEVICE void FetchRows(const CUtensorMap* map, const Geometry& g, Ring ring) {
  const int cluster = ptx::ClusterBlocks();
  const int share = S::kRows / cluster;  // Rows of x that this thread block loads.
  const int own = ptx::ClusterBlock() * share;
  const auto mask = static_cast<uint16_t>((1u << cluster) - 1);
  WaitForPrevious();
  for (int i = 0; i < g.passes * g.chunks; ++i, ring.Next()) {
    const int column = i % g.chunks * S::kColumns;
    const uint32_t to = ring.base + ring.stage * S::kXBytes + own * 128;
    ring.WaitEmpty();
    ptx::BarrierArriveExpect(ring.Full(), S::kXBytes);
#pragma unroll
    for (int c = 0; c < S::kColumns; ++c) {
      ptx::TmaMulticast3d(to + c * S::kXColumnBytes, map, ring.Full(), mask, 0, own, column + c);
    }
  }
}

// Releases a stage, one arrival per warp: for weights at this thread block, for x at every thread
// block of the cluster.
FATHOM_DEVICE void Release(const Ring& w, const Ring& x) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (lane == 0) ptx::BarrierArrive(w.Empty());
  if (lane < ptx::ClusterBlocks()) ptx::ArriveAtBlock(x.Empty(), lane);
}

// The GEMM of one tile: kTile / 2 accumulators in each thread.
template <class T, class S, int kTile>
FATHOM_DEVICE void MultiplyChunks(const Geometry& g, int group, Ring* w_ring, Ring* x_ring,
                                  float* c) {
#pragma unroll
  for (int i = 0; i < kTile / 2; ++i) c[i] = 0.0f;
  Ring w_before, x_before;
  for (int chunk = 0; chunk < g.chunks; ++chunk) {
    x_ring->WaitFull();
    w_ring->WaitFull();
    const uint32_t w_stage = w_ring->base + w_ring->stage * S::kWBytes;
    const uint32_t x_stage = x_ring->base + x_ring->stage * S::kXBytes + group * 8192;
    Hold<kTile / 2>(c);
    ptx::WgmmaFence();
#pragma unroll
    for (int column = 0; column < S::kColumns; ++column) {
      const uint32_t w = (w_stage + column * S::kWColumnBytes) >> 4;
      const uint32_t x = (x_stage + column * S::kXColumnBytes) >> 4;
#pragma unroll
      for (int k = 0; k < 4; ++k) MultiplyTile<T, kTile>(c, x + 2 * k, w + 2 * k);
    }
    ptx::WgmmaCommit();
    ptx::WgmmaWait<1>();
    if (chunk > 0) Release(w_before, x_before);
    w_before = *w_ring, x_before = *x_ring;
    w_ring->Next();
    x_ring->Next();
  }
  ptx::WgmmaWait<0>();
  Hold<kTile / 2>(c);
  Release(w_before, x_before);
}

// `Epilogue` (kernels/cuda/linear/medium_epilogue.cuh) stores a thread's two columns of each 8, for
// rows below g.rows.
template <class T, int kTile, int kRowGroups, int kChunk, class Epilogue>
__global__ void __launch_bounds__(kRowGroups * 128 + 64, 1)
    MediumKernel(const __grid_constant__ CUtensorMap w_map,
                 const __grid_constant__ CUtensorMap x_map, const Geometry g,
                 const Epilogue epilogue) {
  using S = Stage<kTile, kRowGroups, kChunk>;
  constexpr int kWorkers = kRowGroups * 4;  // Warps that multiply.
  extern __shared__ unsigned char shared[];
  Ring w, x;
  w.stages = g.w_stages, x.stages = g.x_stages;
  w.base = (ptx::SharedAddress(shared) + 1023) & ~1023u;
  x.base = w.base + w.stages * S::kWBytes;
  w.full = x.base + x.stages * S::kXBytes;
  w.empty = w.full + 8 * w.stages;
  x.full = w.empty + 8 * w.stages;
  x.empty = x.full + 8 * x.stages;
  if (threadIdx.x == 0) {
    for (int i = 0; i < w.stages; ++i) {
      ptx::BarrierInit(w.full + 8 * i, 1);
      ptx::BarrierInit(w.empty + 8 * i, kWorkers);
    }
    for (int i = 0; i < x.stages; ++i) {
      ptx::BarrierInit(x.full + 8 * i, 1);
      ptx::BarrierInit(x.empty + 8 * i, kWorkers * ptx::ClusterBlocks());
    }
    ptx::BarrierInitFence();
  }
  __syncthreads();
  LetNextStart();
  ptx::ClusterArrive();
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  if (warp == kWorkers) {
    // The weights' barriers and memory belong to this thread block alone.
    if (threadIdx.x % 32 == 0) FetchWeights<S>(&w_map, g, kTile, w);
    __syncwarp();
    ptx::ClusterWait();
  } else if (warp == kWorkers + 1) {
    ptx::ClusterWait();
    if (threadIdx.x % 32 == 0) FetchRows<S>(&x_map, g, x);
    __syncwarp();
  } else {
    ptx::ClusterWait();
    WaitForPrevious();
    const int group = warp / 4, lane = threadIdx.x % 32;
    const int row = group * 64 + warp % 4 * 16 + lane / 4;
    for (int pass = 0; pass < g.passes; ++pass) {
      float c[kTile / 2];
      MultiplyChunks<T, S, kTile>(g, group, &w, &x, c);
      const int first = static_cast<int>(blockIdx.x + pass * gridDim.x) * kTile;
      const int n0 = FetchedRow(first, kTile, g.n) + lane % 4 * 2;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (row + 8 * half < g.rows) {
          epilogue.template Store<T, kTile>(row + 8 * half, n0, {first, g.n}, c + 2 * half);
        }
      }
    }
  }
  // No thread block exits while another one may still send data to it.
  ptx::ClusterArrive();
  if constexpr (requires { epilogue.template After<T>(g.rows, g.n, 0, w.base); }) {
    if (warp < kWorkers) epilogue.template After<T>(g.rows, g.n, kRowGroups, w.base);
  }
  ptx::ClusterWait();
}

}  // namespace fathom::kernels::cuda::medium
