// kernels/cpu/kernels.h: the functions of one instruction set: each op over a range of its units.
// kernels/cpu/dispatch.cc makes the whole op from them. The functions are in <op>_cpu.cc, which is
// compiled once per set. This header must not use the standard library (kernels/cpu/simd.h says
// why).
#pragma once

#include <cstdint>

#include "kernels/add.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/paged_attention.h"
#include "kernels/relu2.h"
#include "kernels/rmsnorm.h"
#include "kernels/rope_kv_write.h"
#include "kernels/silu_mul.h"

namespace fathom::kernels {

struct CpuKernels {
  void (*embedding)(const EmbeddingArgs& args, int64_t row_begin, int64_t row_end);
  void (*rms_norm)(const RmsNormArgs& args, int64_t row_begin, int64_t row_end);
  // The range counts tiles of kPackRows outputs.
  void (*gemm)(const GemmArgs& args, int64_t tile_begin, int64_t tile_end);
  void (*rope_kv_write)(const RopeKvWriteArgs& args, int64_t row_begin, int64_t row_end);
  // The range counts units; the index of a unit is kv_head * row_count + row.
  void (*paged_attention)(const PagedAttentionArgs& args, int64_t begin, int64_t end);
  void (*relu2)(const Relu2Args& args, int64_t row_begin, int64_t row_end);
  void (*silu_mul)(const SiluMulArgs& args, int64_t row_begin, int64_t row_end);
  void (*add)(const AddArgs& args, int64_t begin, int64_t end);

  // Parts of the log-probability and of the sampler, over one row.
  bool (*has_non_finite)(const float* z, int64_t count);
  float (*max)(const float* z, int64_t count);  // count > 0, no NaN.
  float (*sum_exp)(const float* z, int64_t count, float best);
  void (*temper)(float* z, int64_t count, float temperature);
  void (*masses)(const float* z, int64_t count, float best, uint64_t* mass);
  // Adds the noise of each id: z[id] += noise.
  void (*add_noise)(float* z, int64_t count, uint64_t seed, int32_t sequence, int32_t position);
};

}  // namespace fathom::kernels
