#include <cstdint>

#include "kernels/cuda/base/ptx.cuh"
#include "kernels/cuda/linear/product.h"
#include "kernels/cuda/linear/product_config.h"
#include "kernels/cuda/linear/product_tile.h"

namespace fathom::kernels::cuda {
namespace {

constexpr int kRowBytes = kProductChunk * 2;
constexpr int kPieces = kRowBytes / 16;
constexpr int kStepsPerChunk = kProductChunk / 16;

// Loads a thread block's share of a matrix [rows][k] into the stages: kRows rows from `begin`, 64
// elements of k per stage. Rows and elements past the end become zeros.
template <class T, int kRows, int kThreads>
struct Loader {
  static constexpr int kLoads = kRows * kPieces / kThreads;
  static constexpr int kRowStep = kThreads / kPieces;
  static_assert(kRows * kPieces % kThreads == 0 && kRowStep % 8 == 0);

  const T* from;  // The first piece of this thread.
  int64_t row_step;
  int rows_left;  // Rows from this thread's first row on.
  int k_left;     // Elements from this thread's piece on.
  uint32_t to;

  FATHOM_DEVICE Loader Make(const void* matrix, int begin, int rows, int k, uint32_t stage) {
    const int row = threadIdx.x / kPieces, piece = threadIdx.x % kPieces;
    const int64_t first = begin + row < rows ? begin + row : 0;
    return {static_cast<const T*>(matrix) + first * k + piece * 8, int64_t{kRowStep} * k,
            rows - begin - row, k - piece * 8, stage + ProductSwizzle(row, piece)};
  }
  __device__ __forceinline__ void Load(int chunk, uint32_t stage_offset) const {
    const int at = chunk * kProductChunk;
    const bool in_k = at < k_left;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const bool inside = in_k && i * kRowStep < rows_left;
      const T* source = inside ? from + i * row_step + at : from;
      ptx::CopyAsync16(to + stage_offset + i * kRowStep * kRowBytes, source, inside ? 16 : 0);
    }
  }
};

template <class T, ProductTile kTile, bool kFloatOut>
struct Block {
  static constexpr ProductTileShape kShape = ShapeOf(kTile);
  static constexpr int kThreads = kShape.threads();
  static constexpr int kWarpRows = kShape.rows / kShape.warps_rows;
  static constexpr int kWarpN = kShape.n / kShape.warps_n;
  static constexpr int kTilesM = kWarpRows / 16;  // m16n8k16 tiles of a warp.
  static constexpr int kTilesN = kWarpN / 8;
  static_assert(kWarpRows % 16 == 0 && kWarpN % 16 == 0);

  struct Fragments {
    uint32_t x[kTilesM][4], w[kTilesN / 2][4];  // w: two tiles of 8 each.
  };

  // Loads one step of 16 elements of k from a stage into registers.
  static __device__ __forceinline__ void LoadStep(uint32_t x_stage, uint32_t w_stage, int step,
                                                  Fragments* f) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int x_row = warp / kShape.warps_n * kWarpRows + lane % 16;
    const int w_row = warp % kShape.warps_n * kWarpN + lane / 16 * 8 + lane % 8;
#pragma unroll
    for (int i = 0; i < kTilesM; ++i) {
      ptx::LoadMatrix4(f->x[i], x_stage + ProductSwizzle(x_row + i * 16, step * 2 + lane / 16));
    }
#pragma unroll
    for (int j = 0; j < kTilesN; j += 2) {
      ptx::LoadMatrix4(f->w[j / 2],
                       w_stage + ProductSwizzle(w_row + j * 8, step * 2 + lane / 8 % 2));
    }
  }

  static __device__ __forceinline__ void Multiply(const Fragments& f, float (*c)[kTilesN][4]) {
#pragma unroll
    for (int i = 0; i < kTilesM; ++i) {
#pragma unroll
      for (int j = 0; j < kTilesN; ++j) ptx::Mma16816<T>(c[i][j], f.x[i], f.w[j / 2] + j % 2 * 2);
    }
  }

  // Multiplies the first `steps` of the stage's four steps; the others are beyond k.
  static __device__ __forceinline__ void Chunk(uint32_t x_stage, uint32_t w_stage, int steps,
                                               float (*c)[kTilesN][4]) {
    Fragments f[2];
    LoadStep(x_stage, w_stage, 0, &f[0]);
    if (steps >= kStepsPerChunk) {
#pragma unroll
      for (int step = 0; step < kStepsPerChunk; ++step) {
        if (step + 1 < kStepsPerChunk) LoadStep(x_stage, w_stage, step + 1, &f[(step + 1) % 2]);
        Multiply(f[step % 2], c);
      }
      return;
    }
    for (int step = 0; step < steps; ++step) {
      LoadStep(x_stage, w_stage, step, &f[0]);
      Multiply(f[0], c);
    }
  }

  static __device__ __forceinline__ void Store(const ProductArgs& a, int row0, int n0,
                                               float (*c)[kTilesN][4]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row_begin = row0 + warp / kShape.warps_n * kWarpRows + lane / 4;
    const int n_begin = n0 + warp % kShape.warps_n * kWarpN + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < kTilesN; ++j) {
      const int n = n_begin + j * 8;
      if (n >= a.n) continue;
      float2 bias = make_float2(0.0f, 0.0f);
      if (a.bias != nullptr) bias = make_float2(a.bias[n], a.bias[n + 1]);
#pragma unroll
      for (int i = 0; i < kTilesM * 2; ++i) {
        const int row = row_begin + i * 8;
        if (row >= a.rows) continue;
        float low = c[i / 2][j][i % 2 * 2], high = c[i / 2][j][i % 2 * 2 + 1];
        if (a.bias != nullptr) low = __fadd_rn(low, bias.x), high = __fadd_rn(high, bias.y);
        const int64_t at = int64_t{row} * a.n + n;
        if constexpr (kFloatOut) {
          *reinterpret_cast<float2*>(static_cast<float*>(a.y) + at) = make_float2(low, high);
        } else {
          *reinterpret_cast<uint32_t*>(static_cast<T*>(a.y) + at) = Element<T>::Pack(low, high);
        }
      }
    }
  }
};

template <class T, ProductTile kTile, bool kFloatOut>
__global__ void __launch_bounds__(ShapeOf(kTile).threads())
    ProductKernel(const ProductArgs a, int row_tiles, int n_tiles) {
  using B = Block<T, kTile, kFloatOut>;
  constexpr ProductTileShape kShape = B::kShape;
  constexpr int kStageBytes = kShape.stage_bytes(), kStages = kShape.stages;
  extern __shared__ __align__(1024) unsigned char stages[];
  const ProductTileAt tile = TileOfBlock(blockIdx.x, row_tiles, n_tiles);
  const int row0 = tile.row_tile * kShape.rows, n0 = tile.n_tile * kShape.n;
  const uint32_t x_base = ptx::SharedAddress(stages), w_base = x_base + kShape.rows * kRowBytes;
  const auto w = Loader<T, kShape.n, B::kThreads>::Make(a.w, n0, a.n, a.k, w_base);
  const auto x = Loader<T, kShape.rows, B::kThreads>::Make(a.x, row0, a.rows, a.k, x_base);
  const int chunks = (a.k + kProductChunk - 1) / kProductChunk;
  // Weights are constant, so their first stages are loaded while the previous kernel may still run.
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < chunks) w.Load(s, s * kStageBytes);
  }
  WaitForPrevious();
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < chunks) x.Load(s, s * kStageBytes);
    ptx::CopyAsyncCommit();
  }
  LetNextStart();
  float c[B::kTilesM][B::kTilesN][4] = {};
  int stage = 0, next = kStages - 1;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    // The chunk has arrived for all threads, and no thread reads the previous chunk any more.
    ptx::CopyAsyncWait<kStages - 2>();
    __syncthreads();
    if (chunk + kStages - 1 < chunks) {
      w.Load(chunk + kStages - 1, next * kStageBytes);
      x.Load(chunk + kStages - 1, next * kStageBytes);
    }
    ptx::CopyAsyncCommit();
    B::Chunk(x_base + stage * kStageBytes, w_base + stage * kStageBytes,
             (a.k - chunk * kProductChunk) / 16, c);
    stage = stage + 1 == kStages ? 0 : stage + 1;
    next = next + 1 == kStages ? 0 : next + 1;
  }
  B::Store(a, row0, n0, c);
}

template <class T, ProductTile kTile, bool kFloatOut>
cudaError_t LaunchTile(const LaunchContext& context, const ProductArgs& args) {
  constexpr ProductTileShape kShape = ShapeOf(kTile);
  auto* kernel = ProductKernel<T, kTile, kFloatOut>;
  static const cudaError_t prepared = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShape.shared_bytes());
  if (prepared != cudaSuccess) return prepared;
  const int row_tiles = (args.rows + kShape.rows - 1) / kShape.rows;
  const int n_tiles = (args.n + kShape.n - 1) / kShape.n;
  return Launch(context, dim3(row_tiles * n_tiles), dim3(kShape.threads()), kShape.shared_bytes(),
                kernel, args, row_tiles, n_tiles);
}

template <class T, ProductTile kTile>
cudaError_t LaunchOut(const LaunchContext& context, const ProductArgs& args) {
  return args.float_out ? LaunchTile<T, kTile, true>(context, args)
                        : LaunchTile<T, kTile, false>(context, args);
}

template <class T>
cudaError_t LaunchProduct(const LaunchContext& context, const ProductArgs& args, ProductTile tile) {
  switch (tile) {
    case ProductTile::k128x128:
      return LaunchOut<T, ProductTile::k128x128>(context, args);
    case ProductTile::k64x128:
      return LaunchOut<T, ProductTile::k64x128>(context, args);
    case ProductTile::k64x64:
      return LaunchOut<T, ProductTile::k64x64>(context, args);
    case ProductTile::k32x64:
      return LaunchOut<T, ProductTile::k32x64>(context, args);
    case ProductTile::k16x64:
      return LaunchOut<T, ProductTile::k16x64>(context, args);
    case ProductTile::k16x32:
      return LaunchOut<T, ProductTile::k16x32>(context, args);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t ProductWithTile(const LaunchContext& context, const ProductArgs& args,
                            ProductTile tile) {
  if (!IsDeviceType(args.dtype) || args.rows < 0 || args.n <= 0 || args.n % 8 != 0 || args.k <= 0 ||
      args.k % 16 != 0) {
    return cudaErrorInvalidValue;
  }
  if (args.rows == 0) return cudaSuccess;
  return WithType(args.dtype,
                  [&](auto zero) { return LaunchProduct<decltype(zero)>(context, args, tile); });
}

cudaError_t ProductGeneric(const LaunchContext& context, const ProductArgs& args) {
  return ProductWithTile(context, args, PickProductTile(args.rows, args.n, context.sms));
}

}  // namespace fathom::kernels::cuda
