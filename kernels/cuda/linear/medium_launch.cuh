// kernels/cuda/linear/medium_launch.cuh: launches an op of kernels/cuda/linear/medium.h; each op's
// .cu file instantiates its tiles.
#pragma once

#include "kernels/cuda/base/tensor_map.h"
#include "kernels/cuda/linear/medium.h"
#include "kernels/cuda/linear/medium_kernel.cuh"

namespace fathom::kernels::cuda::medium {

struct Call {
  const LaunchContext& context;
  const MediumWeight& w;
  const void* x = nullptr;
  int rows = 0;
};

template <class T, int kTile, int kRowGroups, class Epilogue>
cudaError_t LaunchTile(const Call& call, const Epilogue& epilogue) {
  constexpr int kChunk = MediumChunk(kTile);
  const MediumConfig& config = call.w.ConfigFor(call.rows);
  if (config.chunk != kChunk || config.row_groups != kRowGroups) return cudaErrorInvalidValue;
  CUtensorMap x_map;
  const auto k = static_cast<uint64_t>(call.w.k);
  const TensorMapSpec spec{.base = const_cast<void*>(call.x),
                           .dtype = call.w.dtype,
                           .dims = {64, 64 * kRowGroups, k / 64},
                           .stride_bytes = {2 * k, 128},
                           .box = {64, static_cast<uint32_t>(64 * kRowGroups / config.cluster), 1}};
  if (const cudaError_t error = CachedTensorMap(spec, &x_map); error != cudaSuccess) return error;
  const Geometry geometry{call.rows,     call.w.n,        (call.w.k + kChunk - 1) / kChunk,
                          config.passes, config.w_stages, config.x_stages};
  const auto kernel = MediumKernel<T, kTile, kRowGroups, kChunk, Epilogue>;
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024);
  if (prepared != cudaSuccess) return prepared;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim.x = static_cast<unsigned>(config.cluster);
  attributes[0].val.clusterDim.y = 1;
  attributes[0].val.clusterDim.z = 1;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launch = {};
  launch.gridDim = dim3(static_cast<unsigned>(config.grid));
  launch.blockDim = dim3(kRowGroups * 128 + 64);
  launch.dynamicSmemBytes = static_cast<size_t>(config.shared_bytes);
  launch.stream = call.context.stream;
  launch.attrs = attributes;
  launch.numAttrs = call.context.dependent ? 2 : 1;
  return cudaLaunchKernelEx(&launch, kernel, call.w.map[kRowGroups - 1], x_map, geometry, epilogue);
}

template <class T, int kTile, class Epilogue>
cudaError_t LaunchRows(const Call& call, const Epilogue& epilogue) {
  if (call.rows > 64) return LaunchTile<T, kTile, 2>(call, epilogue);
  return LaunchTile<T, kTile, 1>(call, epilogue);
}

// The first of kTiles... that the configuration names.
template <class T, class Epilogue, int... kTiles>
cudaError_t LaunchOneOf(const Call& call, const Epilogue& epilogue) {
  cudaError_t result = cudaErrorInvalidValue;
  const int tile = call.w.ConfigFor(call.rows).n_tile;
  (void)((tile == kTiles && (result = LaunchRows<T, kTiles>(call, epilogue), true)) || ...);
  return result;
}

template <int... kTiles, class Epilogue>
cudaError_t LaunchMedium(MediumOp op, const Call& call, const Epilogue& epilogue) {
  if (call.w.op != op || call.rows < 1 || call.rows > kMediumRowsMax || call.context.sm != 90) {
    return cudaErrorInvalidValue;
  }
  return WithType(call.w.dtype, [&](auto zero) {
    return LaunchOneOf<decltype(zero), Epilogue, kTiles...>(call, epilogue);
  });
}

}  // namespace fathom::kernels::cuda::medium
