// kernels/cuda/medium_kernel.cuh: the kernel of kernels/cuda/medium.h. Warpgroups 0 to
// kRowGroups - 1 multiply, 64 rows of x each; the last warp fetches. A stage holds `kChunk` of k:
// kChunk / 64 columns of kTile weight rows, then as many of 64 * kRowGroups rows of x. A thread
// block fetches its own weight rows and its share of x, which it sends to all blocks of its
// cluster; a stage may be overwritten when every block of the cluster has released it.
#pragma once

#include "kernels/cuda/medium_mma.cuh"
#include "kernels/cuda/ptx.cuh"

namespace fathom::kernels::cuda::medium {

struct Geometry {
  int rows = 0;    // Of x.
  int n = 0;       // Weight rows.
  int chunks = 0;  // Of k.
  int stages = 0;
  int passes = 0;  // Tiles of this thread block, `grid` apart.
};

template <int kTile, int kRowGroups, int kChunk>
struct Stage {
  static constexpr int kColumns = kChunk / 64;
  static constexpr int kRows = 64 * kRowGroups;
  static constexpr int kWColumnBytes = kTile * 128;
  static constexpr int kXColumnBytes = kRows * 128;
  static constexpr int kWBytes = kColumns * kWColumnBytes;
  static constexpr int kBytes = kWBytes + kColumns * kXColumnBytes;
};

// The fetching warp; one lane does it.
template <class S>
FATHOM_DEVICE void Fetch(const CUtensorMap* w_map, const CUtensorMap* x_map, const Geometry& g,
                         int tile_rows, uint32_t base, uint32_t full, uint32_t empty) {
  const int cluster = ptx::ClusterBlocks();
  const int share = S::kRows / cluster;  // Rows of x that this block fetches.
  const int own = ptx::ClusterBlock() * share;
  const auto mask = static_cast<uint16_t>((1u << cluster) - 1);
  const int total = g.passes * g.chunks;
  const auto weights = [&](int i) {
    const int tile = blockIdx.x + i / g.chunks * gridDim.x, chunk = i % g.chunks;
    const uint32_t stage = base + i % g.stages * S::kBytes, barrier = full + i % g.stages * 8;
    ptx::BarrierArriveExpect(barrier, S::kBytes);
    ptx::TmaLoad3d(stage, w_map, barrier, 0, tile * tile_rows, chunk * S::kColumns);
  };
  const auto rows = [&](int i) {
    const int chunk = i % g.chunks;
    const uint32_t stage = base + i % g.stages * S::kBytes + S::kWBytes;
#pragma unroll
    for (int c = 0; c < S::kColumns; ++c) {
      ptx::TmaMulticast3d(stage + c * S::kXColumnBytes + own * 128, x_map, full + i % g.stages * 8,
                          mask, 0, own, chunk * S::kColumns + c);
    }
  };
  // Weights do not depend on the kernel before: the ring fills while it still runs.
  const int first = min(g.stages, total);
  for (int i = 0; i < first; ++i) weights(i);
  WaitForPrevious();
  for (int i = 0; i < first; ++i) rows(i);
  for (int i = first; i < total; ++i) {
    ptx::BarrierWait(empty + i % g.stages * 8, (i / g.stages & 1) ^ 1);
    weights(i);
    rows(i);
  }
}

// The product of one tile: kTile / 2 accumulators a thread.
template <class T, class S, int kTile>
FATHOM_DEVICE void MultiplyChunks(const Geometry& g, int group, uint32_t base, uint32_t full,
                                  uint32_t empty, int* next, float* c) {
  const auto release = [&](int i) {
    // One arrival a warp at every block of the cluster.
    if (static_cast<int>(threadIdx.x % 32) < ptx::ClusterBlocks())
      ptx::ArriveAtBlock(empty + i % g.stages * 8, threadIdx.x % 32);
  };
#pragma unroll
  for (int i = 0; i < kTile / 2; ++i) c[i] = 0.0f;
  for (int chunk = 0; chunk < g.chunks; ++chunk) {
    const int i = *next + chunk;
    ptx::BarrierWait(full + i % g.stages * 8, i / g.stages & 1);
    const uint32_t stage = base + i % g.stages * S::kBytes;
    Hold<kTile / 2>(c);
    ptx::WgmmaFence();
#pragma unroll
    for (int column = 0; column < S::kColumns; ++column) {
      const uint32_t w = (stage + column * S::kWColumnBytes) >> 4;
      const uint32_t x = (stage + S::kWBytes + column * S::kXColumnBytes + group * 8192) >> 4;
#pragma unroll
      for (int k = 0; k < 4; ++k) MultiplyTile<T, kTile>(c, x + 2 * k, w + 2 * k);
    }
    ptx::WgmmaCommit();
    ptx::WgmmaWait<1>();
    if (chunk > 0) release(i - 1);
  }
  ptx::WgmmaWait<0>();
  Hold<kTile / 2>(c);
  release(*next + g.chunks - 1);
  *next += g.chunks;
}

// `Epilogue` (kernels/cuda/medium_epilogue.cuh) stores a thread's two columns of each 8, for a row
// below g.rows.
template <class T, int kTile, int kRowGroups, int kChunk, class Epilogue>
__global__ void __launch_bounds__(kRowGroups * 128 + 32, 1)
    MediumKernel(const __grid_constant__ CUtensorMap w_map,
                 const __grid_constant__ CUtensorMap x_map, const Geometry g,
                 const Epilogue epilogue) {
  using S = Stage<kTile, kRowGroups, kChunk>;
  extern __shared__ unsigned char shared[];
  const uint32_t base = (ptx::SharedAddress(shared) + 1023) & ~1023u;
  const uint32_t full = base + g.stages * S::kBytes, empty = full + g.stages * 8;
  if (threadIdx.x == 0) {
    for (int i = 0; i < g.stages; ++i) {
      ptx::BarrierInit(full + 8 * i, 1);
      ptx::BarrierInit(empty + 8 * i, kRowGroups * 4 * ptx::ClusterBlocks());
    }
    ptx::BarrierInitFence();
  }
  __syncthreads();
  ptx::ClusterArrive();
  ptx::ClusterWait();
  LetNextStart();
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  if (warp == kRowGroups * 4) {
    if (threadIdx.x % 32 == 0) Fetch<S>(&w_map, &x_map, g, kTile, base, full, empty);
    __syncwarp();
  } else {
    WaitForPrevious();
    const int group = warp / 4, lane = threadIdx.x % 32;
    const int row = group * 64 + warp % 4 * 16 + lane / 4;
    int next = 0;
    for (int pass = 0; pass < g.passes; ++pass) {
      float c[kTile / 2];
      MultiplyChunks<T, S, kTile>(g, group, base, full, empty, &next, c);
      const int n0 = (blockIdx.x + pass * gridDim.x) * kTile + lane % 4 * 2;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (row + 8 * half < g.rows) {
          epilogue.template Store<T, kTile>(row + 8 * half, n0, g.n, c + 2 * half);
        }
      }
    }
  }
  // Nobody leaves while another block may still send to it.
  ptx::ClusterArrive();
  if constexpr (requires { epilogue.template After<T>(g.rows, g.n, 0, base); }) {
    if (warp < kRowGroups * 4) epilogue.template After<T>(g.rows, g.n, kRowGroups, base);
  }
  ptx::ClusterWait();
}

}  // namespace fathom::kernels::cuda::medium
