// kernels/cuda/skinny_config.h: which tiles a skinny product runs with (kernels/cuda/skinny.h).
// Pure: tested without a GPU. The choice changes speed only, never a bit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace fathom::kernels::cuda {

struct SkinnyShape {
  int rows = 0;  // Of x.
  int n = 0;     // Rows of the weight.
  int k = 0;
  bool norm = false;  // The op has a norm before the product.
};

struct SkinnyDevice {
  int sm = 90;
  int sms = 132;
  int shared_bytes = 232448;  // Of one thread block at most.
};

struct SkinnyConfig {
  int row_bucket = 0;  // 1, 8 or 16: rows of x it is built for.
  int tiles = 0;       // Tiles of 16 weight rows that a thread block works on at once.
  int chunk = 0;       // Elements of k in a stage.
  int stages = 0;
  bool fuses_norm = false;
  int shared_bytes = 0;
  int grid = 0;
  bool operator==(const SkinnyConfig&) const = default;
};

// nullopt: this op does not do the shape (rows above 16, k not a multiple of 64, no sm_90, ...).
std::optional<SkinnyConfig> SkinnyPickConfig(const SkinnyShape& shape, const SkinnyDevice& device);
std::string ToString(const SkinnyConfig& config);

}  // namespace fathom::kernels::cuda
