#include "kernels/cuda/linear/skinny.h"

#include "kernels/cuda/linear/skinny_epilogue.cuh"
#include "kernels/cuda/linear/skinny_launch.cuh"

namespace fathom::kernels::cuda {

cudaError_t PrepareSkinny(const SkinnyConfig& config, DType dtype, const void* w, int n, int k,
                          SkinnyWeight* weight) {
  if (!IsDeviceType(dtype) || n <= 0 || n % 8 != 0 || k <= 0 || k % 64 != 0 || config.tiles < 1 ||
      config.tiles > kSkinnyTilesMax || config.chunk < 64 || config.chunk % 64 != 0 ||
      config.stages < 1 || config.grid < 1 || config.shared_bytes < SkinnySharedBytes(config, k)) {
    return cudaErrorInvalidValue;
  }
  weight->config = config;
  weight->dtype = dtype;
  weight->n = n;
  weight->k = k;
  // The map cuts a row of weights into columns of 64 elements, which are the outermost dimension.
  // So one box holds, for each column, the rows of a group side by side. Elements beyond n and k
  // are read as zeros.
  return MakeTensorMap({.base = const_cast<void*>(w),
                        .dtype = dtype,
                        .dims = {64, static_cast<uint64_t>(n), static_cast<uint64_t>(k) / 64},
                        .stride_bytes = {2 * static_cast<uint64_t>(k), 128},
                        .box = {64, static_cast<uint32_t>(config.tiles * kSkinnyTileRows),
                                static_cast<uint32_t>(config.chunk / 64)}},
                       &weight->map);
}

cudaError_t SkinnyResidual(const LaunchContext& context, const SkinnyWeight& w,
                           const SkinnyInput& input, void* residual, const NormAfter& norm) {
  if (input.norm != nullptr) return cudaErrorInvalidValue;
  const int ring_bytes = w.config.stages * SkinnyStageBytes(w.config);
  if (norm.weight != nullptr && (w.n > kNormAfterWidthMax || ring_bytes < kNormAfterSharedBytes)) {
    return cudaErrorInvalidValue;
  }
  skinny::Call call{context, w, input};
  call.workers_min = norm.weight != nullptr ? kNormLanes / 32 : 1;
  return skinny::LaunchSkinny(call, [&](auto zero) {
    using T = decltype(zero);
    return skinny::ResidualEpilogue<T>{static_cast<T*>(residual), w.n, norm,
                                       static_cast<float>(1.0 / w.n)};
  });
}

cudaError_t SkinnyPartial(const LaunchContext& context, const SkinnyWeight& w,
                          const SkinnyInput& input, void* y) {
  if (input.norm != nullptr) return cudaErrorInvalidValue;
  return skinny::LaunchSkinny({context, w, input}, [&](auto zero) {
    using T = decltype(zero);
    return skinny::PartialEpilogue<T>{static_cast<T*>(y), w.n};
  });
}

cudaError_t SkinnyGateUp(const LaunchContext& context, const SkinnyWeight& w,
                         const SkinnyInput& input, void* y) {
  if (w.n % 16 != 0) return cudaErrorInvalidValue;
  return skinny::LaunchSkinny({context, w, input}, [&](auto zero) {
    using T = decltype(zero);
    return skinny::GateUpEpilogue<T>{static_cast<T*>(y), w.n};
  });
}

cudaError_t SkinnyHead(const LaunchContext& context, const SkinnyWeight& w,
                       const SkinnyInput& input, const int32_t* gather, float* logits) {
  return skinny::LaunchSkinny({context, w, input, gather}, [&](auto zero) {
    return skinny::HeadEpilogue<decltype(zero)>{logits, w.n};
  });
}

}  // namespace fathom::kernels::cuda
