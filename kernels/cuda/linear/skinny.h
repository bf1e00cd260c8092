// kernels/cuda/linear/skinny.h: products of few rows at the speed of reading their weights
// (sm_90a): a persistent thread block per multiprocessor streams tiles of weight rows through a
// ring in shared memory by TMA, starting before the previous kernel ends; what surrounds the
// product is fused. Bits equal those of the unfused ops
// (kernels/cuda/{rmsnorm,product,rope_kv_write,silu_mul}.h).
//
//   SkinnyQkv       norm(x) -> qkv + bias -> rotary -> q, and keys and values into their blocks
//   SkinnyResidual  x = round(x + round(W input))                      (o and down)
//   SkinnyGateUp    norm(x) -> gate, up -> silu * mul
//   SkinnyHead      norm(x) -> fp32 logits
//
// Which rows, widths and types it does: SkinnyPickConfig (kernels/cuda/linear/skinny_config.h).
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

// The rows that go in. `norm`: null when x is to be taken as it is.
struct SkinnyInput {
  const void* x = nullptr;      // [rows][k]
  const float* norm = nullptr;  // [k]: x is normed first (needs config.fuses_norm).
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

// residual [rows][n] is read and written. `input.norm` is null. `norm`: of the residual's rows,
// where the next product does not norm them itself.
cudaError_t SkinnyResidual(const LaunchContext& context, const SkinnyWeight& w,
                           const SkinnyInput& input, void* residual, const NormAfter& norm = {});
// y [rows][n / 2]
cudaError_t SkinnyGateUp(const LaunchContext& context, const SkinnyWeight& w,
                         const SkinnyInput& input, void* y);
// logits [rows][n] fp32. `gather` [rows] or null: row i is that of x[gather[i]] (needs
// config.fuses_norm, as a norm does).
cudaError_t SkinnyHead(const LaunchContext& context, const SkinnyWeight& w,
                       const SkinnyInput& input, const int32_t* gather, float* logits);

}  // namespace fathom::kernels::cuda
