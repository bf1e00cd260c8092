// kernels/rmsnorm.h: y = (x * r) * weight with r = 1 / sqrt(mean(x^2) + eps), for each group of
// `dim` values. A row has `groups` groups one after another: one group for a layer's norm, one
// group for each head for a norm per head. All groups use the same weight [dim]. Rows are x_stride
// and y_stride floats apart. y may be x; no other overlap is allowed.
#pragma once

#include <cstdint>

#include "kernels/cpu/thread_pool.h"

namespace fathom::kernels {

struct RmsNormArgs {
  const float* x = nullptr;
  int64_t x_stride = 0;
  const float* weight = nullptr;
  float eps = 0;
  int64_t rows = 0;
  int64_t groups = 1;
  int64_t dim = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

void RmsNormRef(const RmsNormArgs& args);
void RmsNormCpu(const RmsNormArgs& args, ThreadPool& pool);

}  // namespace fathom::kernels
