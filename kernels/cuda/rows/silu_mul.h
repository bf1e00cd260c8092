// kernels/cuda/rows/silu_mul.h: y[r][j] = round(silu(gate j) * up j) with rounded gate and up,
// which are paired in gate_up (kernels/cuda/linear/paired_rows.h).
#pragma once

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

struct SiluMulArgs {
  DType dtype = DType::kBf16;
  const void* gate_up = nullptr;  // [rows][2 ffn]
  void* y = nullptr;              // [rows][ffn]
  int rows = 0;
  int ffn = 0;  // A multiple of 8.
};
cudaError_t SiluMul(const LaunchContext& context, const SiluMulArgs& args);

}  // namespace fathom::kernels::cuda
