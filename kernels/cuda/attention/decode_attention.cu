#include "kernels/cuda/attention/decode_attention.h"

#include "kernels/cuda/attention/attention_common.cuh"
#include "kernels/cuda/attention/decode_attention_config.h"
#include "kernels/cuda/attention/decode_attention_segment.cuh"

namespace fathom::kernels::cuda {
namespace {

using attention::CopyPage;
using attention::kPageBytes;
using attention::kSegmentBlocks;
using attention::kThreads;
using attention::SegmentState;
using attention::Unit;

// Says whether this thread block is the last one of its row and head to write its partials. If so,
// all partials are visible, and the counter is reset to 0 for the next launch.
__device__ bool IsLast(const DecodeAttentionArgs& a, const Unit& unit) {
  __shared__ int before;
  const int segments = unit.Segments();
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t* const arrived = a.arrived + unit.row * a.kv_heads + unit.head;
    before = atomicAdd(arrived, 1);
    if (before == segments - 1) *arrived = 0;
  }
  __syncthreads();
  __threadfence();
  return before == segments - 1;
}

// The ring of halves that copies a unit's pages into shared memory: half 2 i has the keys of page
// i, half 2 i + 1 its values. One half is read while kDecodeHalves - 1 are being copied.
template <class T, int kHeadDim>
class PageRing {
 public:
  __device__ PageRing(const DecodeAttentionArgs& args, uint32_t base, const Unit& unit)
      : a_(args), base_(base), unit_(unit), entry_(Entry()) {}

  // Loads full pages of earlier steps before the previous kernel has ended. No kernel of this step
  // writes to them, to the lengths or to the block tables.
  __device__ void LoadEarly() {
    const int settled = unit_.left - a_.new_tokens;
    while (next_ < kAhead && (next_ / 2 + 1) * kBlockTokens <= settled) Load();
  }
  __device__ void Fill() {
    while (next_ < kAhead) Load();
  }
  // Starts the copy of the next half. It commits one group of copies also beyond the last page,
  // because the wait counts groups.
  __device__ void Load() {
    const int half = next_++, i = half / 2;
    const int tokens = min(unit_.left - i * kBlockTokens, kBlockTokens);
    if (i < kSegmentBlocks && tokens > 0) {
      const int page = __shfl_sync(~0u, entry_, i);
      const bool valid = !kRowFaults || (page >= 0 && page < a_.pool_blocks);
      if (!valid && threadIdx.x == 0) atomicOr(a_.faults + unit_.row, kFaultBlockRange);
      const T* const pool = static_cast<const T*>(half % 2 == 0 ? a_.keys : a_.values);
      const int64_t at = int64_t{valid ? page : 0} * a_.kv_heads + unit_.head;
      CopyPage<kHeadDim>(Slot(half), pool + at * (kBlockTokens * kHeadDim), valid ? tokens : 0);
    }
    ptx::CopyAsyncCommit();
  }
  __device__ uint32_t Slot(int half) const {
    return base_ + half % kDecodeHalves * kPageBytes<kHeadDim>;
  }

 private:
  static constexpr int kAhead = kDecodeHalves - 1;

  // Lane i (0 to 7) of each warp gets the block id of page i of the segment.
  __device__ int Entry() const {
    const int lane = threadIdx.x % 32, at = unit_.segment * kSegmentBlocks + lane;
    if (lane >= kSegmentBlocks || at >= a_.table_stride) return 0;
    return a_.block_tables[int64_t{unit_.row} * a_.table_stride + at];
  }

  const DecodeAttentionArgs& a_;
  const uint32_t base_;
  const Unit& unit_;
  const int entry_;
  int next_ = 0;
};

template <class T, int kHeadDim>
__device__ void WriteZeros(const DecodeAttentionArgs& a, const Unit& unit) {
  const int width = a.heads / a.kv_heads * kHeadDim;
  T* const out = static_cast<T*>(a.out) + (int64_t{unit.row} * a.kv_heads + unit.head) * width;
  for (int i = threadIdx.x; i < width; i += kThreads) out[i] = Element<T>::Round(0.0f);
}

template <class T, int kHeadDim, int kColumns>
__global__ void __launch_bounds__(kThreads)
    DecodeAttentionKernel(const DecodeAttentionArgs a, float scale) {
  extern __shared__ __align__(128) unsigned char shared[];
  LetNextStart();
  const int row = blockIdx.z, head = blockIdx.y, segment = blockIdx.x;
  const Unit unit{row, head, segment, a.segment_begin[row] + segment,
                  a.lengths[row] - segment * canon::kSegmentTokens};
  PageRing<T, kHeadDim> ring(a, ptx::SharedAddress(shared), unit);
  ring.LoadEarly();
  WaitForPrevious();
  if (!unit.Exists()) {
    if (unit.segment == 0) WriteZeros<T, kHeadDim>(a, unit);  // A padding row.
    return;
  }
  SegmentState<T, kHeadDim, kColumns> state(a, shared, scale);
  state.LoadQuery(unit);
  ring.Fill();
  // A page takes three barriers. After the first one its keys are there and the previous values
  // were read. After the second one the maxima are there and its keys were read. After the third
  // one its weights and values are there. A half that was read is free, so the next copy is issued
  // there, where the arithmetic waits anyway.
  const int pages = unit.Pages();
  for (int page = 0; page < pages; ++page) {
    float scores[kColumns / 8][4], factors[kColumns / 8][2];
    ptx::CopyAsyncWait<kDecodeHalves - 2>();
    __syncthreads();
    state.Scores(ring.Slot(2 * page), unit.left - page * kBlockTokens, scores);
    ring.Load();
    state.WriteMaxima(scores);
    __syncthreads();
    state.MoveMaxima(factors);
    state.Weights(scores);
    ring.Load();
    ptx::CopyAsyncWait<kDecodeHalves - 1>();
    __syncthreads();
    state.Accumulate(ring.Slot(2 * page + 1), factors);
  }
  if (unit.Segments() == 1) {
    state.WriteOnly(unit);
    return;
  }
  state.WritePartial(unit);
  if (IsLast(a, unit)) state.MergeAll(unit);
}

template <class T, int kHeadDim, int kColumns>
cudaError_t LaunchDecode(const LaunchContext& context, const DecodeAttentionArgs& a) {
  const auto kernel = DecodeAttentionKernel<T, kHeadDim, kColumns>;
  constexpr int kBytes = DecodeSharedBytes(kHeadDim, kColumns);
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (prepared != cudaSuccess) return prepared;
  return Launch(context, dim3(a.max_segments, a.kv_heads, a.rows), dim3(kThreads), kBytes, kernel,
                a, canon::AttentionScale(kHeadDim));
}

}  // namespace

cudaError_t DecodeAttention(const LaunchContext& context, const DecodeAttentionArgs& args) {
  if (args.rows == 0) return cudaSuccess;
  const auto config = DecodeAttentionPickConfig(args.heads, args.kv_heads, args.head_dim);
  if (!config || args.max_segments < 1) return cudaErrorInvalidValue;
  return WithType(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (config->head_dim == 128) {
      return config->columns == 8 ? LaunchDecode<T, 128, 8>(context, args)
                                  : LaunchDecode<T, 128, 16>(context, args);
    }
    return config->columns == 8 ? LaunchDecode<T, 64, 8>(context, args)
                                : LaunchDecode<T, 64, 16>(context, args);
  });
}

}  // namespace fathom::kernels::cuda
