// kernels/cuda/linear/skinny.h: GEMMs of up to 16 rows at the speed of reading their weights
// (sm_90a). One persistent thread block per multiprocessor streams tiles of weight rows through a
// ring in shared memory by TMA, and starts before the previous kernel has ended. The operations
// around the GEMM are fused into it. The bits equal those of the unfused ops
// (kernels/cuda/linear/product.h; rmsnorm.h, rope_kv_write.h and silu_mul.h in kernels/cuda/rows).
//
//   SkinnyQkv       norm(x) -> qkv + bias -> rotary -> q, and keys and values into their blocks
//   SkinnyResidual  x = round(x + round(W input))                      (o and down)
//   SkinnyPartial   y = round(W input)           (o and down of a rank, to be summed over the
//   ranks) SkinnyGateUp    norm(x) -> gate, up -> silu * mul SkinnyHead      norm(x) -> fp32 logits
//
// SkinnyPickConfig (kernels/cuda/linear/skinny_config.h) says which rows, widths and types are
// supported.
#pragma once

#include <cuda.h>

#include "kernels/cuda/base/launch.h"
#include "kernels/cuda/linear/norm_after.h"
#include "kernels/cuda/linear/skinny_config.h"
#include "kernels/cuda/rows/rope_kv_write.h"

namespace fathom::kernels::cuda {

// A weight matrix prepared for streaming: its tensor map, made once after loading.
struct SkinnyWeight {
  CUtensorMap map;
  SkinnyConfig config;
  DType dtype = DType::kBf16;
  int n = 0;
  int k = 0;
};
// `w` is [n][k] on the device, 16-byte aligned, and outlives the map.
cudaError_t PrepareSkinny(const SkinnyConfig& config, DType dtype, const void* w, int n, int k,
                          SkinnyWeight* weight);

// The input rows. `norm` is null if x needs no norm.
struct SkinnyInput {
  const void* x = nullptr;      // [rows][k]
  const float* norm = nullptr;  // [k]: the weight of the norm of x (needs config.fuses_norm).
  float eps = 0;
  int rows = 0;
};

struct SkinnyQkvArgs {
  SkinnyInput input;
  const float* bias = nullptr;  // [n] in the paired order, or null.
  KvTarget kv;
  void* q = nullptr;  // [rows][heads][head_dim]
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
};
cudaError_t SkinnyQkv(const LaunchContext& context, const SkinnyWeight& w, const SkinnyQkvArgs& a);

// residual [rows][n] is read and written. `input.norm` is null. `norm` asks for the norm of the
// residual's rows, for a next GEMM that does not norm its input itself.
cudaError_t SkinnyResidual(const LaunchContext& context, const SkinnyWeight& w,
                           const SkinnyInput& input, void* residual, const NormAfter& norm = {});
// y [rows][n]: the partial sum of a tensor-parallel rank, rounded to the type. `input.norm` is
// null.
cudaError_t SkinnyPartial(const LaunchContext& context, const SkinnyWeight& w,
                          const SkinnyInput& input, void* y);
// y [rows][n / 2]
cudaError_t SkinnyGateUp(const LaunchContext& context, const SkinnyWeight& w,
                         const SkinnyInput& input, void* y);
// logits [rows][n] in fp32. `gather` is [rows] or null: row i of the logits belongs to x[gather[i]]
// (needs config.fuses_norm, as a norm does).
cudaError_t SkinnyHead(const LaunchContext& context, const SkinnyWeight& w,
                       const SkinnyInput& input, const int32_t* gather, float* logits);

}  // namespace fathom::kernels::cuda
