// kernels/cuda/linear/skinny_kernel.cuh: the kernel of kernels/cuda/linear/skinny.h. A thread block
// computes groups of `tiles` tiles of 16 weight rows. Each of its first warps multiplies one tile
// over the whole of k; the last warp loads. Weights are the tensor core's A operand, rows of x are
// its 8 columns (two times 8 for 16 rows). A stage is a box of the weights: columns of 64 elements,
// and in each column all weight rows of the group, 128 bytes each with the 128-byte swizzle. The
// rows of x follow in the same form, unless x is kept whole (kernels/cuda/linear/skinny_norm.cuh).
// Rows of x between `rows` and the bucket may hold any value, because they influence no other row's
// result.
#pragma once

#include "kernels/cuda/linear/skinny_norm.cuh"

namespace fathom::kernels::cuda::skinny {

struct Geometry {
  int rows = 0;           // Rows of x.
  int n = 0;              // Weight rows.
  int columns = 0;        // Columns of 64 elements in k.
  int stage_columns = 0;  // Columns in a stage.
  int stages = 0;
  int tiles = 0;
  int groups = 0;
  int weight_bytes = 0;  // In a stage.
  int stage_bytes = 0;
  int normed_bytes = 0;  // 0: x comes with the stages.
  int evict_first = 0;
};

struct Ring {
  uint32_t base = 0, full = 0, empty = 0;
  int stage = 0, parity = 0;
  __device__ __forceinline__ void Next(int stages) {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

// The warp that loads; one lane does the work. It loads the chunks of each group in the order in
// which the multiplying warps use them.
template <int kBucket>
struct Fetcher {
  const CUtensorMap* w_map;
  const CUtensorMap* x_map;
  const Geometry& g;
  Ring ring;
  uint64_t policy;
  int group, column = 0;

  __device__ __forceinline__ bool Done() const { return group >= g.groups; }
  __device__ __forceinline__ void Weights() const {
    const uint32_t barrier = ring.full + 8 * ring.stage;
    const uint32_t to = ring.base + ring.stage * g.stage_bytes;
    const int x_bytes = g.normed_bytes > 0 ? 0 : kBucket * 128 * g.stage_columns;
    ptx::BarrierArriveExpect(barrier, g.weight_bytes + x_bytes);
    const int row = group * g.tiles * 16;
    if (g.evict_first != 0) {
      ptx::TmaLoad3dPolicy(to, w_map, barrier, 0, row, column, policy);
    } else {
      ptx::TmaLoad3d(to, w_map, barrier, 0, row, column);
    }
  }
  __device__ __forceinline__ void Rows(int stage, int at) const {
    if (g.normed_bytes > 0) return;
    const uint32_t to = ring.base + stage * g.stage_bytes + g.weight_bytes;
    ptx::TmaLoad3d(to, x_map, ring.full + 8 * stage, 0, 0, at);
  }
  __device__ __forceinline__ void Advance() {
    ring.Next(g.stages);
    column += g.stage_columns;
    if (column >= g.columns) column = 0, group += gridDim.x;
  }
  // Loads the weights of the first stages, which do not depend on the previous kernel.
  __device__ __forceinline__ int Begin() {
    int begun = 0;
    for (; begun < g.stages && !Done(); ++begun) {
      Weights();
      Advance();
    }
    return begun;
  }
  __device__ __forceinline__ void Finish(int begun) {
    if (g.normed_bytes == 0) {
      WaitForPrevious();
      for (int stage = 0, at = 0; stage < begun; ++stage) {
        Rows(stage, at);
        at += g.stage_columns;
        if (at >= g.columns) at = 0;
      }
    }
    while (!Done()) {
      ptx::BarrierWait(ring.empty + 8 * ring.stage, ring.parity ^ 1);
      Weights();
      Rows(ring.stage, column);
      Advance();
    }
  }
};

// The operands of 32 elements of k (two steps).
template <int kBucket>
struct Operands {
  uint32_t a[2][4];
  uint32_t b[kBucket == 16 ? 2 : 1][4];
};

// Loads `half` of a column of 64 elements. `w` is the address of this lane's piece of the first
// step's weights, `x` of the rows of the first two steps. Steps are 32 bytes apart, which the
// swizzle turns into an exclusive or.
template <int kBucket>
FATHOM_DEVICE void LoadOperands(Operands<kBucket>* o, uint32_t w, uint32_t x, uint32_t half) {
  ptx::LoadMatrix4(o->a[0], w ^ half * 64);
  ptx::LoadMatrix4(o->b[0], x ^ half * 64);
  if constexpr (kBucket == 16) ptx::LoadMatrix4(o->b[1], (x ^ half * 64) + 1024);
  ptx::LoadMatrix4(o->a[1], w ^ (half * 64 + 32));
}
template <class T, int kBucket>
FATHOM_DEVICE void MultiplyOperands(float (*c)[4], const Operands<kBucket>& o) {
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    ptx::Mma16816<T>(c[0], o.a[step], o.b[0] + 2 * step);
    if constexpr (kBucket == 16) ptx::Mma16816<T>(c[1], o.a[step], o.b[1] + 2 * step);
  }
}

// Multiplies `columns` columns of a stage for the tile whose pieces for this lane begin at `w`. `x`
// is where its columns of x begin. A single row of x is used for all eight columns.
template <class T, int kBucket>
FATHOM_DEVICE void MultiplyStage(float (*c)[4], uint32_t w, uint32_t w_stride, uint32_t x,
                                 int columns) {
  const uint32_t lane = threadIdx.x % 32;
  const auto x_piece = [&](int column) {
    const uint32_t line = x + column * (kBucket * 128) + (kBucket == 1 ? 0 : lane % 8 * 128);
    return line + ((lane / 8 ^ (line >> 7 & 7)) << 4);
  };
  Operands<kBucket> now, next;
  LoadOperands<kBucket>(&now, w, x_piece(0), 0);
#pragma unroll 2
  for (int column = 0; column < columns; ++column) {
    LoadOperands<kBucket>(&next, w, x_piece(column), 1);
    MultiplyOperands<T, kBucket>(c, now);
    w += w_stride;
    if (column + 1 < columns) LoadOperands<kBucket>(&now, w, x_piece(column + 1), 0);
    MultiplyOperands<T, kBucket>(c, next);
  }
}

// Computes this warp's tile in every group of this thread block.
template <int kBucket, class Epilogue>
FATHOM_DEVICE void Multiply(const Geometry& g, Ring ring, uint32_t normed, int warp,
                            const Epilogue& epilogue) {
  using T = typename Epilogue::Type;
  constexpr int kOwn = kBucket == 1 ? 1 : kBucket / 4;  // Rows of x whose results this lane has.
  const int lane = threadIdx.x % 32;
  const auto row_of = [&](int i) { return lane % 4 * 2 + i % 2 + i / 2 * 8; };
  // If there is a single row of x, only one lane of four has it.
  const auto own = [&](int i) { return row_of(i) < g.rows && (kBucket > 1 || lane % 4 == 0); };
  const uint32_t w_lane = (warp * 16 + lane % 16) * 128 + ((lane / 16 ^ (lane & 7)) << 4);
  const uint32_t w_stride = g.tiles * 2048;
  for (int group = blockIdx.x; group < g.groups; group += gridDim.x) {
    const int at = (group * g.tiles + warp) * 16 + lane / 4;
    typename Epilogue::Tile tile = {};
    typename Epilogue::Row row[kOwn] = {};
    if (at < g.n) {
      tile = epilogue.LoadTile(at);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        if (own(i)) row[i] = epilogue.LoadRow(row_of(i), at);
      }
    }
    float c[kBucket == 16 ? 2 : 1][4] = {};
    for (int column = 0; column < g.columns; column += g.stage_columns) {
      const uint32_t stage = ring.base + ring.stage * g.stage_bytes;
      const uint32_t x =
          g.normed_bytes > 0 ? normed + column * (kBucket * 128) : stage + g.weight_bytes;
      ptx::BarrierWait(ring.full + 8 * ring.stage, ring.parity);
      MultiplyStage<T, kBucket>(c, stage + w_lane, w_stride, x,
                                min(g.stage_columns, g.columns - column));
      __syncwarp();
      if (lane == 0) ptx::BarrierArrive(ring.empty + 8 * ring.stage);
      ring.Next(g.stages);
    }
    if (at >= g.n) continue;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      if (own(i)) {
        epilogue.Store(tile, row[i], row_of(i), at, c[i / 2][i % 2], c[i / 2][2 + i % 2]);
      }
    }
  }
}

// Uses few enough registers for two thread blocks on a multiprocessor, because a thread block may
// start beside a thread block of another kernel and fill its ring (SkinnyBeside).
template <int kBucket, class Epilogue>
__global__ void __launch_bounds__(kSkinnyThreadsMax, 2)
    SkinnyKernel(const __grid_constant__ CUtensorMap w_map,
                 const __grid_constant__ CUtensorMap x_map, const Geometry g, const NormInput in,
                 const Epilogue epilogue) {
  using T = typename Epilogue::Type;
  extern __shared__ unsigned char shared[];
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  const int workers = static_cast<int>(blockDim.x / 32) - 1;
  Ring ring;
  ring.base = (ptx::SharedAddress(shared) + 1023) & ~1023u;
  const uint32_t normed = ring.base + g.stages * g.stage_bytes;
  ring.full = normed + g.normed_bytes;
  ring.empty = ring.full + 8 * g.stages;
  if (warp == workers) {
    Fetcher<kBucket> fetcher{&w_map, &x_map, g, ring, ptx::EvictFirstPolicy(), int(blockIdx.x)};
    int begun = 0;
    if (threadIdx.x % 32 == 0) {
      for (int i = 0; i < g.stages; ++i) {
        ptx::BarrierInit(ring.full + 8 * i, 1);
        ptx::BarrierInit(ring.empty + 8 * i, g.tiles);
      }
      ptx::BarrierInitFence();
      begun = fetcher.Begin();
      if (g.normed_bytes == 0) ptx::PrefetchMap(&x_map);
    }
    __syncwarp();
    __syncthreads();
    LetNextStart();
    if (threadIdx.x % 32 == 0) fetcher.Finish(begun);
    return;
  }
  if (in.weight != nullptr) {
    // A cache line is 32 weights.
    for (int i = threadIdx.x * 32; i < in.k; i += workers * 1024) ptx::PrefetchL2(in.weight + i);
  }
  __syncthreads();
  LetNextStart();
  WaitForPrevious();
  if constexpr (kBucket < 16) {
    if (g.normed_bytes > 0) {
      StageRows<T, kBucket>(in, workers, normed, ring.empty + 8 * g.stages);
    }
  }
  if (warp < g.tiles) Multiply<kBucket>(g, ring, normed, warp, epilogue);
  if constexpr (requires { epilogue.After(g.rows, 0, ring.base); }) {
    epilogue.After(g.rows, workers * 32, ring.base);
  }
}

}  // namespace fathom::kernels::cuda::skinny
