#include "kernels/cuda/linear/medium_epilogue.cuh"
#include "kernels/cuda/linear/medium_launch.cuh"

namespace fathom::kernels::cuda {

// Counts with the largest thread blocks that are compiled.
cudaError_t MediumClustersAtOnce(int cluster, int* clusters) {
  constexpr int kTile = 128, kRowGroups = 2, kChunk = MediumChunk(kTile);
  const auto kernel =
      medium::MediumKernel<__nv_bfloat16, kTile, kRowGroups, kChunk, medium::QkvEpilogue>;
  constexpr int kSharedBytes = 227 * 1024;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t launch = {};
  launch.gridDim = dim3(static_cast<unsigned>(cluster));
  launch.blockDim = dim3(kRowGroups * 128 + 64);
  launch.dynamicSmemBytes = kSharedBytes;
  launch.attrs = &attribute;
  launch.numAttrs = 1;
  return cudaOccupancyMaxActiveClusters(clusters, kernel, &launch);
}

cudaError_t MediumQkv(const LaunchContext& context, const MediumWeight& w, const MediumQkvArgs& a) {
  if (w.n != (a.heads + 2 * a.kv_heads) * a.head_dim || a.head_dim % 16 != 0) {
    return cudaErrorInvalidValue;
  }
  const medium::QkvEpilogue epilogue{a.bias, a.kv, a.q, a.heads, a.kv_heads, a.head_dim};
  return medium::LaunchMedium<48, 80, 96, 128>(MediumOp::kQkv, {context, w, a.x, a.rows}, epilogue);
}

}  // namespace fathom::kernels::cuda
