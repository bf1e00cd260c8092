// kernels/relu2.h: y = relu2(x) with relu2(x) = max(x, 0)^2; a NaN stays a NaN. x, y: [rows, dim];
// their rows are x_stride and y_stride floats apart. y may be x.
#pragma once

#include <cstdint>

#include "kernels/cpu/thread_pool.h"

namespace fathom::kernels {

struct Relu2Args {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t rows = 0;
  int64_t dim = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

void Relu2Ref(const Relu2Args& args);
void Relu2Cpu(const Relu2Args& args, ThreadPool& pool);

}  // namespace fathom::kernels
