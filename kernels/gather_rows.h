// kernels/gather_rows.h: y[i] = x[index[i]], rows of `dim` floats: keeps the rows that go on.
// x: rows x_stride floats apart; y: [rows, dim], y_stride apart. y may be x (then x_stride ==
// y_stride) if index ascends strictly: row i is written after row i was read. No other overlap.
// Bandwidth bound: 8 * rows * dim bytes. Copies have no arithmetic, so there is one vector version
// for every instruction set: the C library's.
#pragma once

#include <cstdint>

namespace fathom::kernels {

struct GatherRowsArgs {
  const float* x = nullptr;
  int64_t x_stride = 0;
  const int32_t* index = nullptr;
  int64_t rows = 0;
  int64_t dim = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

void GatherRowsRef(const GatherRowsArgs& args);
void GatherRowsCpu(const GatherRowsArgs& args);

}  // namespace fathom::kernels
