// The all-reduce of few rows: each rank writes its partial rows into the memory of its peers and
// finds theirs in its own. A line of 16 bytes is {data, number, data, number} with the number of
// the meeting, so that each half says itself whether it has come: no flag and no fence follow the
// data, and nothing is read over a link.
#include "kernels/cuda/comm/all_reduce_rows.cuh"

namespace fathom::kernels::cuda {
namespace {

// The sums of the vectors of a lane, in fp32.
template <int kKept>
struct Sums {
  float2 words[kKept][4];
};

// Adds a rank's vector; `first`: begins with it.
template <class T>
FATHOM_DEVICE void AddVector(float2 (&sums)[4], uint4 vector, bool first) {
  const uint32_t words[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 part = Element<T>::Unpack(words[i]);
    sums[i].x = first ? part.x : __fadd_rn(sums[i].x, part.x);
    sums[i].y = first ? part.y : __fadd_rn(sums[i].y, part.y);
  }
}

// The lines that `sender` writes for a row into the region of `rank`: first the first halves of all
// vectors, then the second ones.
FATHOM_DEVICE uint4* InboxOf(const AllReduceArgs& a, int rank, int sender, int row) {
  const PeerRegionLayout& layout = a.group.layout;
  return InRegion<uint4>(
      a.group, rank,
      layout.inboxes[a.buffer] + sender * layout.inbox_stride + row * (int64_t{a.width} * 4));
}

FATHOM_DEVICE bool HasCome(uint4 line, uint32_t number) {
  return line.y == number && line.w == number;
}

// Waits for the vectors of a lane from one sender. An abort ends the wait; the results are void.
template <int kKept>
FATHOM_DEVICE void TakeVectors(const AllReduceArgs& a, const uint4* inbox, int vectors,
                               uint32_t number, uint4 (&taken)[kKept]) {
  for (uint32_t polls = 1;; ++polls) {
    uint4 lines[kKept][2];
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const int at = threadIdx.x + i * kNormLanes;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        lines[i][half] = at < vectors ? ptx::LoadVolatile16(inbox + half * vectors + at)
                                      : make_uint4(0, number, 0, number);
      }
    }
    bool all = true;
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      all = all && HasCome(lines[i][0], number) && HasCome(lines[i][1], number);
      taken[i] = make_uint4(lines[i][0].x, lines[i][0].z, lines[i][1].x, lines[i][1].z);
    }
    if (all) return;
    if (polls % kPollsPerAbortCheck != 0) continue;
    PeerRegionHeader* const own = HeaderOf(a.group, a.group.rank);
    if (IsAborted(own)) return;
    if (ptx::LoadRelaxedSystem(&a.group.host->abort) == 0) continue;
    ptx::StoreRelaxed(&own->aborted, 1);
    return;
  }
}

// Writes the vectors of a lane into the inbox of every peer, the next rank first.
template <int kRanks, int kKept>
FATHOM_DEVICE void PushVectors(const AllReduceArgs& a, const uint4 (&mine)[kKept], int row,
                               uint32_t number) {
  const int rank = a.group.rank, vectors = a.width / 8;
#pragma unroll
  for (int step = 1; step < kRanks; ++step) {
    const int peer = (rank + step) % kRanks;
    uint4* const inbox = InboxOf(a, peer, rank, row);
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const int at = threadIdx.x + i * kNormLanes;
      if (at >= vectors) continue;
      ptx::StoreVolatile16(inbox + at, make_uint4(mine[i].x, number, mine[i].y, number));
      ptx::StoreVolatile16(inbox + vectors + at, make_uint4(mine[i].z, number, mine[i].w, number));
    }
  }
}

// Thread block b sums row b. A thread is a lane of the norm.
template <class T, int kRanks, int kKept>
__global__ void __launch_bounds__(kNormLanes)
    AllReducePushKernel(const __grid_constant__ AllReduceRowsArgs args) {
  __shared__ float groups[kNormLanes / 32];
  const AllReduceArgs& a = args.op;
  const int rank = a.group.rank, row = blockIdx.x, lane = threadIdx.x, vectors = a.width / 8;
  const int64_t begin = int64_t{row} * vectors;
  PeerRegionHeader* const own = HeaderOf(a.group, rank);
  LetNextStart();  // The next kernel loads its weights while the ranks meet.
  WaitForPrevious();
  const auto* const partial =
      InRegion<const uint4>(a.group, rank, a.group.layout.partials[a.buffer]) + begin;
  const uint32_t number = own->meetings[row] + 1;
  MeasuredWait wait;
  wait.Load(own);
  uint4 mine[kKept], x[kKept];
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int at = lane + i * kNormLanes;
    mine[i] = at < vectors ? partial[at] : make_uint4(0, 0, 0, 0);
  }
  PushVectors<kRanks, kKept>(a, mine, row, number);
  wait.Begin(a.group, CommOp::kPush, number);
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int at = lane + i * kNormLanes;
    x[i] = a.x != nullptr && at < vectors ? static_cast<const uint4*>(a.x)[begin + at]
                                          : make_uint4(0, 0, 0, 0);
  }
  Sums<kKept> sums;
#pragma unroll 1  // The vectors of one sender at a time in registers.
  for (int r = 0; r < kRanks; ++r) {
    uint4 taken[kKept];
    if (r != rank) TakeVectors<kKept>(a, InboxOf(a, rank, r, row), vectors, number, taken);
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      AddVector<T>(sums.words[i], r == rank ? mine[i] : taken[i], r == 0);
    }
  }
  wait.End(own);
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int at = lane + i * kNormLanes;
    if (at >= vectors) continue;
    const auto word = [&](int w) {
      return Element<T>::Pack(sums.words[i][w].x, sums.words[i][w].y);
    };
    mine[i] =
        TakeSum<T>(a, begin + at, make_uint4(word(0), word(1), word(2), word(3)), x[i], &squares);
  }
  __syncthreads();  // Every thread has read the number.
  if (lane == 0) own->meetings[row] = number;
  if (a.y == nullptr) return;
  squares = SumGroup(squares);
  if (lane % 32 == 0) groups[lane / 32] = squares;
  __syncthreads();
  const float factor =
      NormFactor(SumGroups(groups[0], groups[1], groups[2], groups[3]), args.inverse_width, a.eps);
  uint4* const y = static_cast<uint4*>(a.y) + begin;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int at = lane + i * kNormLanes;
    if (at < vectors) y[at] = NormedVector<T>(a, mine[i], factor, at);
  }
}

template <class T, int kRanks>
auto PushInstance(int kept) {
  return kept == 1   ? AllReducePushKernel<T, kRanks, 1>
         : kept == 2 ? AllReducePushKernel<T, kRanks, 2>
         : kept == 4 ? AllReducePushKernel<T, kRanks, 4>
                     : AllReducePushKernel<T, kRanks, 8>;
}

template <class T>
auto PushInstance(int ranks, int kept) {
  return ranks == 2   ? PushInstance<T, 2>(kept)
         : ranks == 4 ? PushInstance<T, 4>(kept)
                      : PushInstance<T, 8>(kept);
}

template <class T>
cudaError_t PreloadPush() {
  for (const int ranks : {2, 4, 8}) {
    for (const int kept : {1, 2, 4, 8}) {
      cudaFuncAttributes attributes;
      const cudaError_t error = cudaFuncGetAttributes(&attributes, PushInstance<T>(ranks, kept));
      if (error != cudaSuccess) return error;
    }
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t AllReducePush(const LaunchContext& context, const AllReduceArgs& args) {
  const auto config =
      PushPickConfig(args.group.ranks, args.rows, args.width, args.group.blocks_max);
  const int64_t bytes = int64_t{args.rows} * args.width * 4;
  if (!config || !IsValid(args) || bytes > args.group.layout.inbox_stride) {
    return cudaErrorInvalidValue;
  }
  if (args.rows == 0) return cudaSuccess;
  const AllReduceRowsArgs kernel_args = {args, static_cast<float>(1.0 / args.width)};
  return WithType(args.dtype, [&](auto zero) {
    return Launch(context, dim3(config->blocks), dim3(config->threads), 0,
                  PushInstance<decltype(zero)>(args.group.ranks, config->kept), kernel_args);
  });
}

cudaError_t PreloadPushKernels() {
  const cudaError_t error = PreloadPush<__nv_bfloat16>();
  return error != cudaSuccess ? error : PreloadPush<__half>();
}

}  // namespace fathom::kernels::cuda
