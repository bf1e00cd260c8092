// kernels/cuda/linear/skinny_launch.cuh: launches an op of kernels/cuda/linear/skinny.h; each op's
// .cu file instantiates its kernels.
#pragma once

#include <algorithm>

#include "kernels/cuda/base/tensor_map.h"
#include "kernels/cuda/linear/skinny.h"
#include "kernels/cuda/linear/skinny_kernel.cuh"

namespace fathom::kernels::cuda::skinny {

struct Call {
  const LaunchContext& context;
  const SkinnyWeight& w;
  const SkinnyInput& input;
  const int32_t* gather = nullptr;
  int workers_min = 1;  // The least number of warps beside the one that loads.
};

template <int kBucket, class Epilogue>
cudaError_t LaunchBucket(const Call& call, const Epilogue& epilogue) {
  const SkinnyConfig& config = call.w.config;
  const auto k = static_cast<uint64_t>(call.w.k);
  CUtensorMap x_map = call.w.map;  // Not used if x is kept whole.
  if (!config.fuses_norm) {
    // Rows beyond the last one are read as zeros.
    const TensorMapSpec spec{
        .base = const_cast<void*>(call.input.x),
        .dtype = call.w.dtype,
        .dims = {64, static_cast<uint64_t>(call.input.rows), k / 64},
        .stride_bytes = {2 * k, 128},
        .box = {64, static_cast<uint32_t>(kBucket), static_cast<uint32_t>(config.chunk / 64)}};
    if (const cudaError_t error = CachedTensorMap(spec, &x_map); error != cudaSuccess) return error;
  }
  const Geometry geometry{.rows = call.input.rows,
                          .n = call.w.n,
                          .columns = call.w.k / 64,
                          .stage_columns = config.chunk / 64,
                          .stages = config.stages,
                          .tiles = config.tiles,
                          .groups = SkinnyGroups(config, call.w.n),
                          .weight_bytes = SkinnyStageWeightBytes(config),
                          .stage_bytes = SkinnyStageBytes(config),
                          .normed_bytes = SkinnyNormedBytes(config, call.w.k),
                          .evict_first = config.evict_first ? 1 : 0};
  const NormInput input{.x = call.input.x,
                        .weight = call.input.norm,
                        .gather = call.gather,
                        .eps = call.input.eps,
                        .inverse_width = static_cast<float>(1.0 / call.w.k),
                        .rows = call.input.rows,
                        .k = call.w.k};
  const auto kernel = SkinnyKernel<kBucket, Epilogue>;
  static const cudaError_t prepared = [&] {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024);
    if (error != cudaSuccess) return error;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                cudaSharedmemCarveoutMaxShared);
  }();
  if (prepared != cudaSuccess) return prepared;
  const int workers = std::max(SkinnyWorkers(config), call.workers_min);
  const auto threads = static_cast<unsigned>(32 * (workers + 1));
  return Launch(call.context, dim3(static_cast<unsigned>(config.grid)), dim3(threads),
                static_cast<size_t>(config.shared_bytes), kernel, call.w.map, x_map, geometry,
                input, epilogue);
}

// `make(zero)` gives the epilogue of an element type.
template <class Make>
cudaError_t LaunchSkinny(const Call& call, Make make) {
  const SkinnyConfig& config = call.w.config;
  const SkinnyInput& input = call.input;
  if (call.context.sm != 90 || input.rows < 0 || input.rows > config.row_bucket) {
    return cudaErrorInvalidValue;
  }
  if (!config.fuses_norm && (input.norm != nullptr || call.gather != nullptr)) {
    return cudaErrorInvalidValue;
  }
  if (input.rows == 0) return cudaSuccess;
  return WithType(call.w.dtype, [&](auto zero) {
    const auto epilogue = make(zero);
    switch (config.row_bucket) {
      case 1:
        return LaunchBucket<1>(call, epilogue);
      case 8:
        return LaunchBucket<8>(call, epilogue);
      case 16:
        return LaunchBucket<16>(call, epilogue);
      default:
        return cudaErrorInvalidValue;
    }
  });
}

}  // namespace fathom::kernels::cuda::skinny
