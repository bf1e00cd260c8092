#include "kernels/cuda/linear/product_config.h"

namespace fathom::kernels::cuda {
namespace {

int64_t Tiles(ProductTile tile, int rows, int n) {
  const ProductTileShape shape = ShapeOf(tile);
  return int64_t{(rows + shape.rows - 1) / shape.rows} * ((n + shape.n - 1) / shape.n);
}

}  // namespace

ProductTile PickProductTile(int rows, int n, int sms) {
  // With few rows, reading w takes all of the time, so enough thread blocks must read it.
  if (rows <= 16) {
    return Tiles(ProductTile::k16x64, rows, n) >= 2 * sms ? ProductTile::k16x64
                                                          : ProductTile::k16x32;
  }
  if (rows <= 32) return ProductTile::k32x64;
  // The largest tile that still gives every multiprocessor a thread block: it reads shared memory
  // the least.
  if (rows > 64 && Tiles(ProductTile::k128x128, rows, n) >= sms) return ProductTile::k128x128;
  if (Tiles(ProductTile::k64x128, rows, n) >= sms) return ProductTile::k64x128;
  if (Tiles(ProductTile::k64x64, rows, n) >= sms / 2) return ProductTile::k64x64;
  return ProductTile::k32x64;
}

}  // namespace fathom::kernels::cuda
