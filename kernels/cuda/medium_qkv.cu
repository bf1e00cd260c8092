#include "kernels/cuda/medium_epilogue.cuh"
#include "kernels/cuda/medium_launch.cuh"

namespace fathom::kernels::cuda {

cudaError_t PrepareMedium(MediumOp op, const MediumDevice& device, DType dtype, const void* w,
                          int n, int k, MediumWeight* weight) {
  MediumConfig configs[2];
  for (int i = 0; i < 2; ++i) {
    const auto config = MediumPickConfig({op, i == 0 ? 64 : kMediumRowsMax, n, k}, device);
    if (!config) return cudaErrorInvalidValue;
    configs[i] = *config;
  }
  return PrepareMediumWith(op, configs, dtype, w, n, k, weight);
}

cudaError_t PrepareMediumWith(MediumOp op, const MediumConfig (&configs)[2], DType dtype,
                              const void* w, int n, int k, MediumWeight* weight) {
  if (!IsDeviceType(dtype)) return cudaErrorInvalidValue;
  weight->op = op;
  weight->dtype = dtype;
  weight->n = n;
  weight->k = k;
  for (int i = 0; i < 2; ++i) {
    weight->config[i] = configs[i];
    const auto columns = static_cast<uint64_t>(k) / 64;
    const TensorMapSpec spec{.base = const_cast<void*>(w),
                             .dtype = dtype,
                             .dims = {64, static_cast<uint64_t>(n), columns},
                             .stride_bytes = {2 * static_cast<uint64_t>(k), 128},
                             .box = {64, static_cast<uint32_t>(configs[i].n_tile),
                                     static_cast<uint32_t>(configs[i].chunk / 64)}};
    const cudaError_t error = MakeTensorMap(spec, &weight->map[i]);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t MediumClustersAtOnce(int cluster, int* clusters) {
  constexpr int kTile = 128, kRowGroups = 2, kChunk = 64;
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

cudaError_t QueryMediumDevice(MediumDevice* device) {
  int id = 0, major = 0, minor = 0, clusters = 0;
  cudaError_t error = cudaGetDevice(&id);
  const auto get = [&](int* to, cudaDeviceAttr attribute) {
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(to, attribute, id);
  };
  get(&major, cudaDevAttrComputeCapabilityMajor);
  get(&minor, cudaDevAttrComputeCapabilityMinor);
  get(&device->sms, cudaDevAttrMultiProcessorCount);
  get(&device->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  device->sm = 10 * major + minor;
  device->blocks_of_four = 0;
  if (error != cudaSuccess || device->sm != 90) return error;
  error = MediumClustersAtOnce(4, &clusters);
  device->blocks_of_four = 4 * clusters;
  return error;
}

cudaError_t MediumQkv(const LaunchContext& context, const MediumWeight& w, const MediumQkvArgs& a) {
  if (w.n != (a.heads + 2 * a.kv_heads) * a.head_dim || a.head_dim % 16 != 0) {
    return cudaErrorInvalidValue;
  }
  const medium::QkvEpilogue epilogue{a.bias, a.kv, a.q, a.heads, a.kv_heads, a.head_dim};
  return medium::LaunchMedium<48, 80, 96, 128>(MediumOp::kQkv, {context, w, a.x, a.rows}, epilogue);
}

}  // namespace fathom::kernels::cuda
