// kernels/cuda/linear/medium.h: GEMMs of 17 to 128 rows (any number up to 128 works) at the speed
// of reading their weights (sm_90a). Every thread block computes one tile of weight rows for all
// rows of x, so the weights are read once and all multiprocessors work until the end. The thread
// blocks of a cluster read x once for all of them (TMA multicast). The rows of x are the M side of
// wgmma. The operations after the GEMM are fused into it. The norm before it is computed by the
// previous residual GEMM or by kernels/cuda/rows/rmsnorm.h. The bits equal those of the unfused
// ops.
//
// x is read up to the next multiple of 64 rows, so the memory there must exist; its content does
// not matter, because rows do not influence each other (TMA is slower for rows that it must fill
// with zeros). MediumPickConfig (kernels/cuda/linear/medium_config.h) says which shapes are
// supported.
#pragma once

#include <cuda.h>

#include "kernels/cuda/base/launch.h"
#include "kernels/cuda/linear/medium_config.h"
#include "kernels/cuda/linear/norm_after.h"
#include "kernels/cuda/rows/rope_kv_write.h"

namespace fathom::kernels::cuda {

// A weight matrix prepared for an op, once after loading: one map for up to 64 rows, one for up to
// 128.
struct MediumWeight {
  CUtensorMap map[2];
  MediumConfig config[2];
  MediumOp op = MediumOp::kResidual;
  DType dtype = DType::kBf16;
  int n = 0;
  int k = 0;
  const MediumConfig& ConfigFor(int rows) const { return config[rows > 64 ? 1 : 0]; }
};
// `w` is [n][k] on the device, 16-byte aligned, and outlives the maps. Returns
// cudaErrorInvalidValue if the op does not support the shape.
cudaError_t PrepareMedium(MediumOp op, const MediumDevice& device, DType dtype, const void* w,
                          int n, int k, MediumWeight* weight);
// The same with configurations that the caller chooses, for up to 64 and for up to 128 rows. For
// tests and measurements.
cudaError_t PrepareMediumWith(MediumOp op, const MediumConfig (&configs)[2], DType dtype,
                              const void* w, int n, int k, MediumWeight* weight);

// The number of clusters of `cluster` thread blocks, each with all shared memory of a
// multiprocessor, that run at the same time on this device.
cudaError_t MediumClustersAtOnce(int cluster, int* clusters);
// Describes this device for MediumPickConfig.
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
// residual [rows][n] = round(residual + round(W x)), then the norm of its rows if `norm` has one.
cudaError_t MediumResidual(const LaunchContext& context, const MediumWeight& w, const void* x,
                           int rows, void* residual, const NormAfter& norm = {});
// y [rows][n] = round(W x): the partial sum of a tensor-parallel rank. `w` is prepared for
// MediumOp::kResidual.
cudaError_t MediumPartial(const LaunchContext& context, const MediumWeight& w, const void* x,
                          int rows, void* y);
// y [rows][n / 2] = silu(gate) * up, from paired gate and up.
cudaError_t MediumGateUp(const LaunchContext& context, const MediumWeight& w, const void* x,
                         int rows, void* y);
// logits [rows][n], fp32.
cudaError_t MediumHead(const LaunchContext& context, const MediumWeight& w, const void* x, int rows,
                       float* logits);

}  // namespace fathom::kernels::cuda
