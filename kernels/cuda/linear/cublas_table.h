// kernels/cuda/linear/cublas_table.h: which cuBLASLt algorithm a GEMM may use, by device, library
// version and shape. tests/bench/cuda/cublas_table_tool has compared every output bit of these
// algorithms with ProductGeneric's and wrote the table (cublas_table.inc). The table changes speed
// only: a shape that it lacks runs ProductGeneric. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kernels/tensor.h"

namespace fathom::kernels::cuda {

// An algorithm as the library stores it; opaque.
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

// The first part of a GEMM of `rows` rows: all of them, or, if the table ends earlier, as many rows
// as the table has. `algo` is null if the table has no entry for them.
struct CublasChoice {
  const CublasAlgo* algo = nullptr;
  int rows = 0;
};
// REQUIRES: `table` is sorted by (shape, rows_min), and the entries of a shape do not overlap.
CublasChoice ChooseCublas(std::span<const CublasEntry> table, const CublasShape& shape, int rows);

// The built-in table, sorted.
std::span<const CublasEntry> CublasTable();

}  // namespace fathom::kernels::cuda
