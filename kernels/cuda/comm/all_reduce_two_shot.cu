#include <algorithm>

#include "kernels/cuda/comm/all_reduce_rows.cuh"

namespace fathom::kernels::cuda {
namespace {

// Each rank sums its share of the rows into its own region.
template <class T>
__global__ void __launch_bounds__(256) TwoShotSumKernel(const __grid_constant__ AllReduceArgs a) {
  LetNextStart();  // The next kernel loads its weights while the ranks meet.
  WaitForPrevious();
  if (!MeetPeers(a.group, CommOp::kTwoShotSum)) return;
  const RowShare share = ShareOf(a.rows, a.group.ranks, a.group.rank);
  const int64_t vectors = a.width / 8, first = share.first * vectors;
  const int64_t count = share.rows * vectors;
  uint4* const sums = InRegion<uint4>(a.group, a.group.rank, a.group.layout.sums);
  const uint4* from[kCommRanksMax];
#pragma unroll
  for (int r = 0; r < kCommRanksMax; ++r) {
    from[r] = InRegion<const uint4>(a.group, r, a.group.layout.partials[a.buffer]) + first;
  }
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint4 parts[kCommRanksMax];
#pragma unroll
    for (int r = 0; r < kCommRanksMax; ++r) {
      if (r < a.group.ranks) parts[r] = ptx::LoadPeer16(from[r] + i);
    }
    sums[i] = SumRanks<T>(parts, a.group.ranks);
  }
}

template <class T>
__global__ void __launch_bounds__(256) OrderedSumKernel(const __grid_constant__ OrderedSumArgs a) {
  WaitForPrevious();
  LetNextStart();
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < a.count / 8; i += stride) {
    uint4 parts[kCommRanksMax];
#pragma unroll
    for (int r = 0; r < kCommRanksMax; ++r) {
      if (r < a.ranks) parts[r] = ptx::LoadPeer16(static_cast<const uint4*>(a.parts[r]) + i);
    }
    static_cast<uint4*>(a.out)[i] = SumRanks<T>(parts, a.ranks);
  }
}

template <class T>
cudaError_t PreloadTwoShot() {
  cudaFuncAttributes attributes;
  for (const cudaError_t error :
       {cudaFuncGetAttributes(&attributes, TwoShotSumKernel<T>),
        cudaFuncGetAttributes(&attributes, OrderedSumKernel<T>), PreloadAllReduceRows<T, 1>()}) {
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t AllReduceTwoShotSum(const LaunchContext& context, const AllReduceArgs& args) {
  const auto config =
      TwoShotSumPickConfig(args.group.ranks, args.rows, args.width, args.group.blocks_max);
  if (!config || !IsValid(args)) return cudaErrorInvalidValue;
  if (args.rows == 0) return cudaSuccess;
  return WithType(args.dtype, [&](auto zero) {
    return Launch(context, dim3(config->blocks), dim3(config->threads), 0,
                  TwoShotSumKernel<decltype(zero)>, args);
  });
}

cudaError_t AllReduceTwoShotFinish(const LaunchContext& context, const AllReduceArgs& args) {
  const auto config =
      TwoShotFinishPickConfig(args.group.ranks, args.rows, args.width, args.group.blocks_max);
  if (!config || !IsValid(args)) return cudaErrorInvalidValue;
  if (args.rows == 0) return cudaSuccess;
  return WithType(args.dtype, [&](auto zero) {
    return LaunchAllReduceRows<decltype(zero), 1>(context, args, *config);
  });
}

cudaError_t OrderedSum(const LaunchContext& context, const OrderedSumArgs& args) {
  if (args.ranks < 1 || args.ranks > kCommRanksMax || args.count < 0 || args.count % 8 != 0) {
    return cudaErrorInvalidValue;
  }
  if (args.count == 0) return IsDeviceType(args.dtype) ? cudaSuccess : cudaErrorInvalidValue;
  const int64_t blocks = std::min<int64_t>((args.count / 8 + 255) / 256, 1024);
  return WithType(args.dtype, [&](auto zero) {
    return Launch(context, dim3(static_cast<unsigned>(blocks)), dim3(256), 0,
                  OrderedSumKernel<decltype(zero)>, args);
  });
}

cudaError_t PreloadTwoShotKernels() {
  const cudaError_t error = PreloadTwoShot<__nv_bfloat16>();
  return error != cudaSuccess ? error : PreloadTwoShot<__half>();
}

}  // namespace fathom::kernels::cuda
