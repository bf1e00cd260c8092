#include "kernels/cuda/linear/medium.h"

#include "kernels/cuda/base/tensor_map.h"

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

}  // namespace fathom::kernels::cuda
