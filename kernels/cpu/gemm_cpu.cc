#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/kernels.h"

namespace fathom::kernels {
namespace FATHOM_ISA {
namespace {

// A block of rows of x of this size stays in the L1 cache while the weight is streamed.
constexpr int64_t kBlockFloats = 6144;
constexpr int kRowsMax = kAccumulatorsMax / 4;

// Writes y[0...count) = sums, + bias, + residual. `count` is below kCols only at the end of the
// matrix.
template <int kCols>
FATHOM_SIMD void Finish(const float* sums, const float* bias, const float* residual, float* y,
                        int64_t count) {
  for (int64_t c = 0; c < kCols; ++c) {
    if (c >= count) break;
    float value = sums[c];
    if (bias != nullptr) value += bias[c];
    if (residual != nullptr) value += residual[c];
    y[c] = value;
  }
}

template <int kCols>
FATHOM_SIMD void FinishWhole(const float* sums, const float* bias, const float* residual,
                             float* y) {
  float values[kCols];
  for (int c = 0; c < kCols; ++c) values[c] = sums[c];
  if (bias != nullptr) {
    for (int c = 0; c < kCols; ++c) values[c] += bias[c];
  }
  if (residual != nullptr) {
    for (int c = 0; c < kCols; ++c) values[c] += residual[c];
  }
  for (int c = 0; c < kCols; ++c) y[c] = values[c];
}

// Multiplies rows [row, row + kRows) with a tile's 8 outputs, kCols outputs at a time.
template <DType kType, int kRows>
void Tile(const GemmArgs& args, int64_t row, int64_t tile) {
  constexpr int kCols = kRows * 8 <= kAccumulatorsMax ? 8 : 4;
  constexpr int64_t kRowBytes = kStep * (kType == DType::kF32 ? 4 : 2);
  constexpr int64_t kStepBytes = kPackRows * kRowBytes;
  const int64_t k = args.weight.cols;
  const char* w = static_cast<const char*>(args.weight.data) +
                  tile * ((k + kPackCols - 1) / kPackCols) * kStepBytes;
  float sums[(kRows * kCols + 7) / 8 * 8];
  float tail[kRows * kStep];
  if (k % kStep != 0) FillTail(args.x + row * args.x_stride, args.x_stride, kRows, k, tail);
  for (int first = 0; first < kPackRows; first += kCols) {
    DotTile<kType, kRows, kCols>(args.x + row * args.x_stride, args.x_stride, w + first * kRowBytes,
                                 kRowBytes, kStepBytes, k, tail, sums);
    const int64_t n = tile * kPackRows + first;
    const int64_t count = args.weight.rows - n;
    const float* bias = args.bias == nullptr ? nullptr : args.bias + n;
    for (int r = 0; r < kRows; ++r) {
      const float* residual =
          args.residual == nullptr ? nullptr : args.residual + (row + r) * args.residual_stride + n;
      float* y = args.y + (row + r) * args.y_stride + n;
      if (count >= kCols) {
        FinishWhole<kCols>(sums + r * kCols, bias, residual, y);
      } else {
        Finish<kCols>(sums + r * kCols, bias, residual, y, count);
      }
    }
  }
}

template <DType kType>
FATHOM_SIMD void TileOf(int64_t rows, const GemmArgs& args, int64_t row, int64_t tile) {
  switch (rows) {
    case 1:
      return Tile<kType, 1>(args, row, tile);
    case 2:
      return Tile<kType, 2>(args, row, tile);
#if defined(__AVX512F__)
    case 3:
      return Tile<kType, 3>(args, row, tile);
    case 4:
      return Tile<kType, 4>(args, row, tile);
#endif
  }
}

template <DType kType>
void GemmTiles(const GemmArgs& args, int64_t tile_begin, int64_t tile_end) {
  int64_t block = kBlockFloats / args.weight.cols / kRowsMax * kRowsMax;
  if (block < kRowsMax) block = kRowsMax;
  for (int64_t first = 0; first < args.rows; first += block) {
    const int64_t end = first + block < args.rows ? first + block : args.rows;
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      for (int64_t row = first; row < end;) {
        // The parts are as equal as possible: 7 rows become 4 and 3.
        const int64_t left = end - row;
        const int64_t parts = (left + kRowsMax - 1) / kRowsMax;
        const int64_t rows = (left + parts - 1) / parts;
        TileOf<kType>(rows, args, row, tile);
        row += rows;
      }
    }
  }
}

}  // namespace

void Gemm(const GemmArgs& args, int64_t tile_begin, int64_t tile_end) {
  switch (args.weight.dtype) {
    case DType::kF32:
      return GemmTiles<DType::kF32>(args, tile_begin, tile_end);
    case DType::kBf16:
      return GemmTiles<DType::kBf16>(args, tile_begin, tile_end);
    case DType::kF16:
      return GemmTiles<DType::kF16>(args, tile_begin, tile_end);
  }
}

}  // namespace FATHOM_ISA
}  // namespace fathom::kernels
