// kernels/gather_rows.h: copies rows of `dim` floats: y[i] = x[index[i]]. It keeps the rows that
// need logits. x: rows x_stride floats apart; y: [rows, dim], rows y_stride floats apart. y may be
// x if x_stride == y_stride and `index` ascends strictly: then row i is written after row i was
// read. No other overlap is allowed.
// The op is bound by memory bandwidth: 8 * rows * dim bytes. It has no arithmetic, so one version
// (memcpy of the C library) serves every instruction set.
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
