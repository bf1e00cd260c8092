#include "kernels/cuda/medium_epilogue.cuh"
#include "kernels/cuda/medium_launch.cuh"

namespace fathom::kernels::cuda {

cudaError_t PrepareMedium(MediumOp op, const MediumDevice& device, DType dtype, const void* w,
                          int n, int k, MediumWeight* weight) {
  if (!IsDeviceType(dtype)) return cudaErrorInvalidValue;
  weight->op = op;
  weight->dtype = dtype;
  weight->n = n;
  weight->k = k;
  for (int i = 0; i < 2; ++i) {
    const auto config = MediumPickConfig({op, i == 0 ? 64 : kMediumRowsMax, n, k}, device);
    if (!config) return cudaErrorInvalidValue;
    weight->config[i] = *config;
    const auto columns = static_cast<uint64_t>(k) / 64;
    const TensorMapSpec spec{.base = const_cast<void*>(w),
                             .dtype = dtype,
                             .dims = {64, static_cast<uint64_t>(n), columns},
                             .stride_bytes = {2 * static_cast<uint64_t>(k), 128},
                             .box = {64, static_cast<uint32_t>(config->n_tile),
                                     static_cast<uint32_t>(config->chunk / 64)}};
    const cudaError_t error = MakeTensorMap(spec, &weight->map[i]);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t MediumQkv(const LaunchContext& context, const MediumWeight& w, const MediumQkvArgs& a) {
  if (w.n != (a.heads + 2 * a.kv_heads) * a.head_dim || a.head_dim % 16 != 0) {
    return cudaErrorInvalidValue;
  }
  const medium::QkvEpilogue epilogue{a.bias, a.kv, a.q, a.heads, a.kv_heads, a.head_dim};
  return medium::LaunchMedium<48, 80, 96, 128>(MediumOp::kQkv, {context, w, a.x, a.rows}, epilogue);
}

}  // namespace fathom::kernels::cuda
