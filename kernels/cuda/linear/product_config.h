// kernels/cuda/linear/product_config.h: the tiles of ProductGeneric
// (kernels/cuda/linear/product.h), and the order in which its thread blocks compute them. Pure:
// tested without a GPU. The choice changes speed only, never a bit: every tile adds k in the same
// order.
#pragma once

#include <cstdint>

namespace fathom::kernels::cuda {

// Elements of k in a stage of every tile: a row of a stage is 128 bytes.
inline constexpr int kProductChunk = 64;

enum class ProductTile : uint8_t { k128x128, k64x128, k64x64, k32x64, k16x64, k16x32 };
inline constexpr ProductTile kProductTiles[] = {ProductTile::k128x128, ProductTile::k64x128,
                                                ProductTile::k64x64,   ProductTile::k32x64,
                                                ProductTile::k16x64,   ProductTile::k16x32};

// A thread block's outputs, its warps and its stages.
struct ProductTileShape {
  int rows, n;  // Rows of x and of w.
  int warps_rows, warps_n;
  int stages;

  constexpr int threads() const { return warps_rows * warps_n * 32; }
  constexpr int stage_bytes() const { return (rows + n) * kProductChunk * 2; }
  constexpr int shared_bytes() const { return stages * stage_bytes(); }
};
constexpr ProductTileShape ShapeOf(ProductTile tile) {
  switch (tile) {
    case ProductTile::k128x128:
      return {128, 128, 2, 2, 3};
    case ProductTile::k64x128:
      return {64, 128, 1, 4, 4};
    case ProductTile::k64x64:
      return {64, 64, 2, 2, 4};
    case ProductTile::k32x64:
      return {32, 64, 1, 4, 5};
    case ProductTile::k16x64:
      return {16, 64, 1, 4, 6};
    case ProductTile::k16x32:
      return {16, 32, 1, 2, 8};
  }
  return {};
}

ProductTile PickProductTile(int rows, int n, int sms);

// The tile of thread block `index`. The row tiles of a group come first, so that the thread blocks
// that run at the same time share a few rows of w and of x.
struct ProductTileAt {
  int row_tile = 0, n_tile = 0;
};
inline constexpr int kProductGroup = 16;
constexpr ProductTileAt TileOfBlock(int index, int row_tiles, int n_tiles) {
  const int group = index / (kProductGroup * n_tiles), in_group = index % (kProductGroup * n_tiles);
  const int begin = group * kProductGroup;
  const int size = row_tiles - begin < kProductGroup ? row_tiles - begin : kProductGroup;
  return {begin + in_group % size, in_group / size};
}

// The offset of 16 bytes in a stage's matrix. A row has 8 pieces in a swizzled order, so that the 8
// rows that one ldmatrix reads at the same piece use all banks.
constexpr int ProductSwizzle(int row, int piece) { return row * 128 + ((piece ^ (row % 8)) * 16); }

}  // namespace fathom::kernels::cuda
