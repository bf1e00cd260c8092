// kernels/cuda/linear/cublas_table.h: which cuBLASLt algorithm a product may take: those whose
// every output bit tests/bench/cuda/cublas_table_tool has compared with ProductGeneric's, by
// device, library version and shape. The table (cublas_table.inc, written by that tool) changes
// speed only: what it lacks runs our own kernel. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kernels/tensor.h"

namespace fathom::kernels::cuda {

// An algorithm as the library configures it: opaque.
using CublasAlgo = std::array<uint64_t, 8>;

struct CublasShape {
  int sm = 0;       // Compute capability: 90.
  int version = 0;  // cublasLtGetVersion().
  DType dtype = DType::kBf16;
  int n = 0;
  int k = 0;
  bool float_out = false;
  bool bias = false;
  auto operator<=>(const CublasShape&) const = default;
};

struct CublasEntry {
  CublasShape shape;
  int rows_min = 0;
  int rows_max = 0;
  CublasAlgo algo = {};
};

// What to run first of a product of `rows`: `rows` itself, or, where the table ends earlier, the
// most rows that it has. `algo` is null where the table lacks them.
struct CublasChoice {
  const CublasAlgo* algo = nullptr;
  int rows = 0;
};
// REQUIRES: `table` is sorted by (shape, rows_min), the entries of a shape do not overlap.
CublasChoice ChooseCublas(std::span<const CublasEntry> table, const CublasShape& shape, int rows);

// The built-in table, sorted.
std::span<const CublasEntry> CublasTable();

}  // namespace fathom::kernels::cuda
