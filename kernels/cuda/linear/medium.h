// kernels/cuda/linear/medium.h: products of 17 to 128 rows (any number up to 128) at the speed of
// reading their weights (sm_90a): every thread block has the weight rows of one tile for all rows
// of x, so that the weights are read once and all multiprocessors work until the end; blocks of a
// cluster read x once for all of them (TMA multicast). wgmma with the rows of x as its M side. What
// follows the product is fused; x is normed before, by the residual's product or by
// kernels/cuda/rows/rmsnorm.h. Bits equal those of the unfused ops. x is read up to the next
// multiple of 64 rows, whatever lies there (rows do not touch each other, and a row that TMA fills
// with zeros takes it longer than one it reads). Shapes: MediumPickConfig
// (kernels/cuda/linear/medium_config.h).
#pragma once

#include <cuda.h>

#include "kernels/cuda/base/launch.h"
#include "kernels/cuda/linear/medium_config.h"
#include "kernels/cuda/linear/norm_after.h"
#include "kernels/cuda/rows/rope_kv_write.h"

namespace fathom::kernels::cuda {

// A weight matrix prepared for an op, for up to 64 and for up to 128 rows. Made once after loading.
struct MediumWeight {
  CUtensorMap map[2];
  MediumConfig config[2];
  MediumOp op = MediumOp::kResidual;
  DType dtype = DType::kBf16;
  int n = 0;
  int k = 0;
  const MediumConfig& ConfigFor(int rows) const { return config[rows > 64 ? 1 : 0]; }
};
// `w` is [n][k] on the device, 16-byte aligned, and outlives the maps. cudaErrorInvalidValue: not a
// shape for this op.
cudaError_t PrepareMedium(MediumOp op, const MediumDevice& device, DType dtype, const void* w,
                          int n, int k, MediumWeight* weight);
// The same with configurations of the caller's choice, for up to 64 and for up to 128 rows: for
// tests and measurements.
cudaError_t PrepareMediumWith(MediumOp op, const MediumConfig (&configs)[2], DType dtype,
                              const void* w, int n, int k, MediumWeight* weight);

// How many clusters of `cluster` thread blocks with all of a multiprocessor's memory run at once on
// this device.
cudaError_t MediumClustersAtOnce(int cluster, int* clusters);
// This device for MediumPickConfig.
cudaError_t QueryMediumDevice(MediumDevice* device);

struct MediumQkvArgs {
  const void* x = nullptr;  // [rows][k]
  int rows = 0;
  const float* bias = nullptr;  // [n] in the paired order, or null.
  KvTarget kv;
  void* q = nullptr;  // [rows][heads][head_dim]
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
};
cudaError_t MediumQkv(const LaunchContext& context, const MediumWeight& w, const MediumQkvArgs& a);
// residual [rows][n] = round(residual + round(W x)); then its norm.
cudaError_t MediumResidual(const LaunchContext& context, const MediumWeight& w, const void* x,
                           int rows, void* residual, const NormAfter& norm = {});
// y [rows][n / 2] = silu * mul of the paired gate and up.
cudaError_t MediumGateUp(const LaunchContext& context, const MediumWeight& w, const void* x,
                         int rows, void* y);
// logits [rows][n], fp32.
cudaError_t MediumHead(const LaunchContext& context, const MediumWeight& w, const void* x, int rows,
                       float* logits);

}  // namespace fathom::kernels::cuda
