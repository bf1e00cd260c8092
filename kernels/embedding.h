// kernels/embedding.h: y[r] = table[tokens[r]], widened to fp32.
// table: [vocab, dim] row-major; y: [rows, dim], y_stride floats apart.
// REQUIRES: 0 <= tokens[r] < table.rows.
#pragma once

#include <cstdint>

#include "kernels/cpu/thread_pool.h"
#include "kernels/tensor.h"

namespace fathom::kernels {

struct EmbeddingArgs {
  TensorView table;
  const int32_t* tokens = nullptr;
  int64_t rows = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

void EmbeddingRef(const EmbeddingArgs& args);
void EmbeddingCpu(const EmbeddingArgs& args, ThreadPool& pool);

}  // namespace fathom::kernels
