#include <algorithm>

#include "kernels/cuda/attention/prefill_attention.h"
#include "kernels/cuda/attention/prefill_plan.h"
#include "kernels/cuda/attention/prefill_wgmma_consumer.cuh"
#include "kernels/cuda/attention/prefill_wgmma_producer.cuh"
#include "kernels/cuda/base/tensor_map.h"

// One persistent thread block runs on each multiprocessor: warpgroup 0 is the producer (one warp,
// TMA), warpgroups 1 and 2 are consumers of 64 query rows each. Tiles are handed out by a counter
// (kernels/cuda/attention/prefill_plan.h). ptxas is near its register limit here (168, which
// setmaxnreg turns into 240 in the consumers). After every change, check the output of -Xptxas -v
// for spills and for serialized wgmma (C7510 to C7520; the build refuses those).
namespace fathom::kernels::cuda {
namespace prefill {
namespace {

__device__ __forceinline__ void SetUp(const Shared& shared, uint32_t ones) {
  if (threadIdx.x == 0) {
    const auto init = [&](int first, int count, int arrivals) {
      for (int i = first; i < first + count; ++i) ptx::BarrierInit(shared.Bar(i), arrivals);
    };
    init(kQueryFull, 2, 1);
    init(kQueryFree, 2, 4);
    init(kKeyFull, kKeyStages, 1);
    init(kKeyFree, kKeyStages, 8);
    init(kValueFull, kValueSlots, 1);
    init(kValueFree, kValueSlots, 8);
    init(kValueTail, 1, 1);
    ptx::BarrierInitFence();
    ptx::StoreShared(shared.At(kTailParity), 0);
  }
  for (int i = threadIdx.x; i < static_cast<int>(kUnit / 16); i += kThreads) {
    *reinterpret_cast<uint4*>(shared.bytes + kOnes + i * 16) = make_uint4(ones, ones, ones, ones);
  }
  ptx::FenceAsyncProxy();
  __syncthreads();
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillKernel(const __grid_constant__ CUtensorMap query_map,
                  const __grid_constant__ CUtensorMap key_map,
                  const __grid_constant__ CUtensorMap value_map,
                  const __grid_constant__ CUtensorMap out_map,
                  const __grid_constant__ KernelArgs args,
                  const __grid_constant__ PrefillPlan plan) {
  extern __shared__ unsigned char raw[];
  const uint32_t address = ptx::SharedAddress(raw);
  const Shared shared{raw + ((1024 - (address & 1023)) & 1023), (address + 1023) & ~1023u};
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
  SetUp(shared, Element<T>::kOnes);
  WaitForPrevious();
  LetNextStart();
  if (warpgroup == 0) {
    ptx::KeepRegisters<24>();
    if (threadIdx.x < 32) Produce(shared, args, plan, &query_map, &key_map, &value_map);
    return;
  }
  ptx::TakeRegisters<240>();
  Consume<T>(shared, args, &out_map, warpgroup - 1);
}

struct Maps {
  CUtensorMap query, key, value, out;
};

cudaError_t MakeMaps(const PrefillAttentionArgs& a, Maps* maps) {
  constexpr uint64_t kRowBytes = 2 * kHeadDim;
  const auto rows = [&](const void* base, uint32_t box_rows) {  // For q and out.
    TensorMapSpec spec;
    spec.base = const_cast<void*>(base);
    spec.dtype = a.dtype;
    spec.dims = {kHeadDim, static_cast<uint64_t>(a.heads), static_cast<uint64_t>(a.total_rows)};
    spec.stride_bytes = {kRowBytes, kRowBytes * a.heads};
    spec.box = {64, 1, box_rows};
    return spec;
  };
  const auto plane = [&](const void* base) {
    TensorMapSpec spec;
    spec.base = const_cast<void*>(base);
    spec.dtype = a.dtype;
    spec.dims = {kHeadDim, static_cast<uint64_t>(a.pool_blocks) * a.kv_heads * kBlockTokens};
    spec.stride_bytes = {kRowBytes};
    spec.box = {64, kBlockTokens};
    return spec;
  };
  cudaError_t error = CachedTensorMap(rows(a.q, kConsumerRows), &maps->query);
  if (error == cudaSuccess) error = CachedTensorMap(plane(a.keys), &maps->key);
  if (error == cudaSuccess) error = CachedTensorMap(plane(a.values), &maps->value);
  if (error == cudaSuccess) error = CachedTensorMap(rows(a.out, 16), &maps->out);
  return error;
}

template <class T>
cudaError_t LaunchPlan(const LaunchContext& context, const Maps& maps, const KernelArgs& args,
                       const PrefillPlan& plan) {
  static const cudaError_t prepared = cudaFuncSetAttribute(
      PrefillKernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (prepared != cudaSuccess) return prepared;
  return Launch(context, dim3(std::min(context.sms, plan.tiles)), dim3(kThreads), kSharedBytes,
                PrefillKernel<T>, maps.query, maps.key, maps.value, maps.out, args, plan);
}

bool Does(const LaunchContext& context, const PrefillAttentionArgs& a) {
  return context.sm == 90 && IsDeviceType(a.dtype) && a.head_dim == kHeadDim && a.heads > 0 &&
         a.kv_heads > 0 && a.heads % a.kv_heads == 0 &&
         int64_t{a.pool_blocks} * a.kv_heads * kBlockTokens <= INT32_MAX;
}

}  // namespace
}  // namespace prefill

cudaError_t PrefillAttentionWgmma(const LaunchContext& context, const PrefillAttentionArgs& a) {
  if (!prefill::Does(context, a)) return cudaErrorInvalidValue;
  prefill::Maps maps;
  const cudaError_t error = prefill::MakeMaps(a, &maps);
  if (error != cudaSuccess) return error;
  const prefill::KernelArgs args = {a.block_tables,
                                    a.work_counter,
                                    a.faults,
                                    a.out,
                                    a.table_stride,
                                    a.pool_blocks,
                                    a.heads,
                                    a.kv_heads,
                                    a.heads / a.kv_heads,
                                    canon::AttentionScale(a.head_dim)};
  // The table of chunks in a launch has a fixed size. A step with more chunks, which is rare, takes
  // several launches.
  for (size_t begin = 0; begin < a.chunks.size(); begin += kPrefillPlanChunks) {
    const size_t count = std::min<size_t>(a.chunks.size() - begin, kPrefillPlanChunks);
    PrefillPlanChunk chunks[kPrefillPlanChunks];
    for (size_t i = 0; i < count; ++i) {
      const PrefillChunk& c = a.chunks[begin + i];
      chunks[i] = {c.row_begin, c.rows, c.position_begin, c.table_row};
    }
    const PrefillPlan plan = PlanPrefill({chunks, count}, a.heads, a.kv_heads);
    if (plan.tiles == 0) continue;
    const cudaError_t launched = WithType(a.dtype, [&](auto zero) {
      return prefill::LaunchPlan<decltype(zero)>(context, maps, args, plan);
    });
    if (launched != cudaSuccess) return launched;
  }
  return cudaSuccess;
}

}  // namespace fathom::kernels::cuda
