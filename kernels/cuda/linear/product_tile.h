// kernels/cuda/linear/product_tile.h: ProductGeneric with a tile that the caller chooses: for
// tests, which compare the bits of every tile, and for measuring PickProductTile.
#pragma once

#include "kernels/cuda/linear/product.h"
#include "kernels/cuda/linear/product_config.h"

namespace fathom::kernels::cuda {

cudaError_t ProductWithTile(const LaunchContext& context, const ProductArgs& args,
                            ProductTile tile);

}  // namespace fathom::kernels::cuda
