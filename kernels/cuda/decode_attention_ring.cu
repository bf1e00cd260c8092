// DecodeAttentionRing: thread blocks that stay, and take segments of all rows one after the other.
#include <algorithm>

#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/decode_segment.cuh"

namespace fathom::kernels::cuda {
namespace {

using attention::DecodeItem;
using attention::DecodeSegment;
using attention::DecodeShared;
using attention::kPageBytes;
using attention::kSegmentBlocks;
using attention::kThreads;

// The ring of pages. With three thread blocks on a multiprocessor 64 KB each keep the memory busy;
// where there are fewer blocks than multiprocessors one must do it alone.
constexpr int kRingBytes = 64 << 10;
constexpr int kDeepRingBytes = 144 << 10;

__device__ __forceinline__ int SegmentsOf(int length) {
  return (length + canon::kSegmentTokens - 1) / canon::kSegmentTokens;
}

// Item `index` of (segments of all rows, kv heads), the last fastest; false past the last one. A
// barrier for the thread block: what the item before left in shared memory is done with.
__device__ __forceinline__ bool FindItem(const DecodeAttentionArgs& a, int index, int* found,
                                         DecodeItem* item) {
  const int segment = index / a.kv_heads;
  item->kv_head = index - segment * a.kv_heads;
  item->row = 0;
  item->segment = segment;
  if (threadIdx.x == 0) *found = -1;
  __syncthreads();
  if (a.rows > 1) {
    for (int row = threadIdx.x; row < a.rows; row += kThreads) {
      const int in_row = segment - a.segment_begin[row];
      if (in_row >= 0 && in_row < SegmentsOf(a.lengths[row])) *found = row;
    }
    __syncthreads();
    item->row = *found;
    if (item->row < 0) return false;
    item->segment -= a.segment_begin[item->row];
  }
  const int lane = threadIdx.x % 32, block = item->segment * kSegmentBlocks + lane;
  item->entry = 0;
  if (lane < kSegmentBlocks && block < a.table_stride) {
    item->entry = a.block_tables[int64_t{item->row} * a.table_stride + block];
  }
  item->length = a.lengths[item->row];
  if (item->begin() >= item->length) return false;
  if (kRowFaults && lane < item->blocks() &&
      static_cast<uint32_t>(item->entry) >= static_cast<uint32_t>(a.pool_blocks)) {
    item->entry = -1;
    if (threadIdx.x < 32) atomicOr(a.faults + item->row, kFaultBlockRange);
  }
  return true;
}

// Whether this thread block is the last of its row and kv head to have written its partial: then
// all of them are there, and the counter is as the next launch wants it.
__device__ __forceinline__ bool IsLast(const DecodeAttentionArgs& a, const DecodeItem& item,
                                       int segments, int* before) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t* const arrived = a.arrived + int64_t{item.row} * a.kv_heads + item.kv_head;
    *before = atomicAdd(arrived, 1);
    if (*before == segments - 1) *arrived = 0;
  }
  __syncthreads();
  __threadfence();
  return *before == segments - 1;
}

// All segments of a row in ascending order: a warp for a head, a lane for head_dim / 32 dimensions.
template <class T, int kHeadDim>
__device__ __forceinline__ void MergeAll(const DecodeAttentionArgs& a, int64_t first_unit,
                                         int64_t first_head, int segments, float scale) {
  constexpr int kPairs = kHeadDim / 64;
  constexpr int kAhead = 8;  // Segments loaded at a time.
  const int group = a.heads / a.kv_heads, lane = threadIdx.x % 32;
  for (int column = threadIdx.x / 32; column < group; column += kThreads / 32) {
    const auto* const ml = reinterpret_cast<const float2*>(a.partial_ml) + first_unit + column;
    const auto* const o = reinterpret_cast<const float2*>(a.partial_o) +
                          (first_unit + column) * (kHeadDim / 2) + lane * kPairs;
    float top = -INFINITY, total = 0;
    float2 merged[kPairs] = {};
    for (int begin = 0; begin < segments; begin += kAhead) {
      float2 next_ml[kAhead], next[kAhead][kPairs];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int64_t unit = int64_t{min(begin + i, segments - 1)} * a.heads;
        next_ml[i] = __ldcg(ml + unit);
#pragma unroll
        for (int p = 0; p < kPairs; ++p) next[i][p] = __ldcg(o + unit * (kHeadDim / 2) + p);
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (begin + i >= segments) break;
        const MergeFactors f = Merge(&top, &total, next_ml[i].x, next_ml[i].y, scale);
#pragma unroll
        for (int p = 0; p < kPairs; ++p) {
          merged[p].x =
              __fadd_rn(__fmul_rn(merged[p].x, f.merged), __fmul_rn(next[i][p].x, f.segment));
          merged[p].y =
              __fadd_rn(__fmul_rn(merged[p].y, f.merged), __fmul_rn(next[i][p].y, f.segment));
        }
      }
    }
    auto* const out =
        reinterpret_cast<uint32_t*>(static_cast<T*>(a.out) + (first_head + column) * kHeadDim) +
        lane * kPairs;
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      out[p] = Element<T>::Pack(__fdiv_rn(merged[p].x, total), __fdiv_rn(merged[p].y, total));
    }
  }
}

template <int kHeadDim>
__device__ __forceinline__ void ZeroPadding(const DecodeAttentionArgs& a) {
  const int pieces = a.heads * kHeadDim / 8;
  for (int row = blockIdx.x; row < a.rows; row += gridDim.x) {
    if (a.lengths[row] > 0) continue;
    auto* const out = static_cast<uint4*>(a.out) + int64_t{row} * pieces;
    for (int i = threadIdx.x; i < pieces; i += kThreads) out[i] = make_uint4(0, 0, 0, 0);
  }
}

template <class T, int kHeadDim, int kColumns, int kStages>
__global__ void __launch_bounds__(kThreads)
    DecodeRingKernel(const DecodeAttentionArgs a, float scale) {
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ int found, arrived_before;
  WaitForPrevious();
  DecodeItem item;
  for (int index = blockIdx.x; FindItem(a, index, &found, &item); index += gridDim.x) {
    DecodeSegment<T, kHeadDim, kColumns, kStages> segment(a, item, shared, scale);
    segment.Compute();
    const int segments = SegmentsOf(item.length);
    if (segments == 1) {
      segment.WriteResult();
      continue;
    }
    const int64_t first_unit = int64_t{index / a.kv_heads - item.segment} * a.heads +
                               item.kv_head * (a.heads / a.kv_heads);
    segment.WritePartial(first_unit + int64_t{item.segment} * a.heads);
    if (IsLast(a, item, segments, &arrived_before)) {
      MergeAll<T, kHeadDim>(a, first_unit, segment.Head(), segments, scale);
    }
  }
  ZeroPadding<kHeadDim>(a);
}

template <class T, int kHeadDim, int kColumns, int kRing>
cudaError_t LaunchDecode(const LaunchContext& context, const DecodeAttentionArgs& a) {
  constexpr int kStages = kRing / kPageBytes<kHeadDim>;
  constexpr int kBytes = DecodeShared<kHeadDim, kColumns, kStages>::kBytes;
  const auto kernel = DecodeRingKernel<T, kHeadDim, kColumns, kStages>;
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (prepared != cudaSuccess) return prepared;
  static const int resident = [&] {  // Thread blocks of a multiprocessor.
    int blocks = 0;
    const cudaError_t error =
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kThreads, kBytes);
    return error == cudaSuccess ? std::max(blocks, 1) : 1;
  }();
  const int64_t items = int64_t{a.rows} * a.max_segments * a.kv_heads;  // At most.
  const int64_t blocks = std::min<int64_t>(items, int64_t{resident} * context.sms);
  return Launch(context, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), kBytes, kernel, a,
                canon::AttentionScale(kHeadDim));
}

template <class T, int kHeadDim>
cudaError_t LaunchHeadDim(const LaunchContext& context, const DecodeAttentionArgs& a) {
  const int group = a.heads / a.kv_heads;
  if (group > 16) return cudaErrorInvalidValue;
  if (group > 8) return LaunchDecode<T, kHeadDim, 16, kRingBytes>(context, a);
  const bool few = int64_t{a.rows} * a.max_segments * a.kv_heads <= context.sms;
  return few && context.sm == 90 ? LaunchDecode<T, kHeadDim, 8, kDeepRingBytes>(context, a)
                                 : LaunchDecode<T, kHeadDim, 8, kRingBytes>(context, a);
}

}  // namespace

cudaError_t DecodeAttentionRing(const LaunchContext& context, const DecodeAttentionArgs& args) {
  if (args.kv_heads < 1 || args.heads % args.kv_heads != 0 || args.max_segments < 1 ||
      int64_t{args.rows} * args.max_segments * args.kv_heads > INT32_MAX) {
    return cudaErrorInvalidValue;
  }
  if (args.rows == 0) return cudaSuccess;
  return WithType(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (args.head_dim == 128) return LaunchHeadDim<T, 128>(context, args);
    if (args.head_dim == 64) return LaunchHeadDim<T, 64>(context, args);
    return cudaErrorInvalidValue;
  });
}

}  // namespace fathom::kernels::cuda
