// kernels/add.h: computes y[i] += x[i] for i < `count`. It adds the residual after an all-reduce.
#pragma once

#include <cstdint>

#include "kernels/cpu/thread_pool.h"

namespace fathom::kernels {

struct AddArgs {
  const float* x = nullptr;
  float* y = nullptr;
  int64_t count = 0;
};

void AddRef(const AddArgs& args);
void AddCpu(const AddArgs& args, ThreadPool& pool);

}  // namespace fathom::kernels
