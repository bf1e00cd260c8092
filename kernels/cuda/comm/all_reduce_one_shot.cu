#include "kernels/cuda/comm/all_reduce_rows.cuh"

namespace fathom::kernels::cuda {
namespace {

template <class T>
cudaError_t LaunchOneShot(const LaunchContext& context, const AllReduceArgs& args,
                          const AllReduceConfig& config) {
  switch (args.group.ranks) {
    case 2:
      return LaunchAllReduceRows<T, 2>(context, args, config);
    case 4:
      return LaunchAllReduceRows<T, 4>(context, args, config);
    case 8:
      return LaunchAllReduceRows<T, 8>(context, args, config);
    default:
      return cudaErrorInvalidValue;
  }
}

template <class T>
cudaError_t PreloadOneShot() {
  for (auto* preload :
       {PreloadAllReduceRows<T, 2>, PreloadAllReduceRows<T, 4>, PreloadAllReduceRows<T, 8>}) {
    if (const cudaError_t error = preload(); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t AllReduceOneShot(const LaunchContext& context, const AllReduceArgs& args) {
  const auto config =
      OneShotPickConfig(args.group.ranks, args.rows, args.width, args.group.blocks_max);
  if (!config || !IsValid(args)) return cudaErrorInvalidValue;
  if (args.rows == 0) return cudaSuccess;
  return WithType(args.dtype,
                  [&](auto zero) { return LaunchOneShot<decltype(zero)>(context, args, *config); });
}

cudaError_t PreloadOneShotKernels() {
  const cudaError_t error = PreloadOneShot<__nv_bfloat16>();
  return error != cudaSuccess ? error : PreloadOneShot<__half>();
}

}  // namespace fathom::kernels::cuda
