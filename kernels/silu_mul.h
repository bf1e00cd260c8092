// kernels/silu_mul.h: y = silu(gate) * up with silu(x) = x / (1 + exp(-x)). gate, up, y: [rows,
// dim]. Rows of gate and up are `stride` floats apart, rows of y are y_stride floats apart. y may
// be gate.
#pragma once

#include <cstdint>

#include "kernels/cpu/thread_pool.h"

namespace fathom::kernels {

struct SiluMulArgs {
  const float* gate = nullptr;
  const float* up = nullptr;
  int64_t stride = 0;
  int64_t rows = 0;
  int64_t dim = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

void SiluMulRef(const SiluMulArgs& args);
void SiluMulCpu(const SiluMulArgs& args, ThreadPool& pool);

}  // namespace fathom::kernels
