#include "kernels/cuda/comm/peer_messages.h"

#include "kernels/cuda/comm/peer_barrier.cuh"

namespace fathom::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPieceBytes = kThreads * 16;  // Of one thread block, in turn.

FATHOM_DEVICE bool IsAligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Copies the bytes of this thread block.
FATHOM_DEVICE void CopyPieces(void* to, const void* from, int64_t bytes) {
  const bool vectors = IsAligned16(to) && IsAligned16(from);
  for (int64_t begin = int64_t{blockIdx.x} * kPieceBytes; begin < bytes;
       begin += int64_t{kMessageBlocks} * kPieceBytes) {
    const int64_t end = begin + kPieceBytes < bytes ? begin + kPieceBytes : bytes;
    if (vectors && end - begin == kPieceBytes) {
      static_cast<uint4*>(to)[begin / 16 + threadIdx.x] =
          ptx::LoadPeer16(static_cast<const uint4*>(from) + begin / 16 + threadIdx.x);
      continue;
    }
    for (int64_t i = begin / 4 + threadIdx.x; i < end / 4; i += kThreads) {
      static_cast<uint32_t*>(to)[i] = ptx::LoadRelaxed(static_cast<const uint32_t*>(from) + i);
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    PeerGatherKernel(const __grid_constant__ PeerGatherArgs a) {
  WaitForPrevious();
  PeerRegionHeader* const own = HeaderOf(a.group, a.group.rank);
  const uint32_t number = own->gathers[blockIdx.x];
  const int64_t buffer = a.group.layout.gathers[number % 2];
  CopyPieces(InRegion<void>(a.group, a.group.rank, buffer), a.mine, a.bytes);
  if (!MeetPeers(a.group, CommOp::kGather)) return;
  LetNextStart();
  for (int r = 0; r < a.group.ranks; ++r) {
    CopyPieces(static_cast<std::byte*>(a.all) + r * a.bytes,
               InRegion<const void>(a.group, r, buffer), a.bytes);
  }
  if (threadIdx.x == 0) own->gathers[blockIdx.x] = number + 1;
}

// One thread block: its meeting tells that all kernels before this one have ended on every rank.
__global__ void __launch_bounds__(32) PeerExchangeKernel(const __grid_constant__ PeerGroup group) {
  WaitForPrevious();
  LetNextStart();
  MeetPeers(group, CommOp::kExchange);
}

// One thread waits for the thread block.
FATHOM_DEVICE bool WaitForMail(const PeerGroup& group, const uint32_t* word, uint32_t number) {
  bool alive = true;
  if (threadIdx.x == 0) {
    alive = !IsAborted(HeaderOf(group, group.rank)) && WaitForNumber(word, number, group);
  }
  return __syncthreads_and(alive) != 0;
}

// The number of places is a power of two, so that the places follow one another when the numbers
// wrap around.
FATHOM_DEVICE int64_t MailPlace(const PeerGroup& group, int sender, int receiver, uint32_t number) {
  const PeerRegionLayout& layout = group.layout;
  const int first = MailSender(sender, receiver, group.ranks) * layout.mail_places;
  const int place = first + static_cast<int>(number % static_cast<uint32_t>(layout.mail_places));
  return layout.mail + place * layout.mail_stride;
}

__global__ void __launch_bounds__(kThreads)
    PeerSendKernel(const __grid_constant__ PeerMessageArgs a) {
  WaitForPrevious();
  const int block = blockIdx.x, rank = a.group.rank;
  PeerRegionHeader* const own = HeaderOf(a.group, rank);
  const uint32_t number = own->sent[block][a.peer] + 1;
  MeasuredWait wait;
  wait.Load(own);
  wait.Begin(a.group, CommOp::kSend, number);
  // The earlier message with the same place has left it.
  const uint32_t earlier = number - static_cast<uint32_t>(a.group.layout.mail_places);
  if (!WaitForMail(a.group, &own->mail_taken[block][a.peer], earlier)) return;
  wait.End(own);
  CopyPieces(InRegion<void>(a.group, a.peer, MailPlace(a.group, rank, a.peer, number)), a.data,
             a.bytes);
  LetNextStart();
  __syncthreads();
  if (threadIdx.x != 0) return;
  own->sent[block][a.peer] = number;
  ptx::StoreReleaseSystem(&HeaderOf(a.group, a.peer)->mail_sent[block][rank], number);
}

__global__ void __launch_bounds__(kThreads)
    PeerRecvKernel(const __grid_constant__ PeerMessageArgs a) {
  WaitForPrevious();
  const int block = blockIdx.x, rank = a.group.rank;
  PeerRegionHeader* const own = HeaderOf(a.group, rank);
  const uint32_t number = own->received[block][a.peer] + 1;
  MeasuredWait wait;
  wait.Load(own);
  wait.Begin(a.group, CommOp::kRecv, number);
  if (!WaitForMail(a.group, &own->mail_sent[block][a.peer], number)) return;
  wait.End(own);
  CopyPieces(a.to, InRegion<const void>(a.group, rank, MailPlace(a.group, a.peer, rank, number)),
             a.bytes);
  LetNextStart();
  __syncthreads();
  if (threadIdx.x != 0) return;
  own->received[block][a.peer] = number;
  ptx::StoreReleaseSystem(&HeaderOf(a.group, a.peer)->mail_taken[block][rank], number);
}

bool IsValid(const PeerMessageArgs& a, int sender, int receiver) {
  return a.bytes >= 0 && a.bytes % 4 == 0 && a.bytes <= a.group.layout.mail_stride && a.peer >= 0 &&
         a.peer < a.group.ranks && a.peer != a.group.rank &&
         MailSender(sender, receiver, a.group.ranks) < a.group.layout.mail_senders;
}

}  // namespace

cudaError_t PeerGather(const LaunchContext& context, const PeerGatherArgs& args) {
  const int64_t room = args.group.layout.gathers[1] - args.group.layout.gathers[0];
  if (args.bytes < 0 || args.bytes % 4 != 0 || args.bytes > room) return cudaErrorInvalidValue;
  return Launch(context, dim3(kMessageBlocks), dim3(kThreads), 0, PeerGatherKernel, args);
}

cudaError_t PeerExchange(const LaunchContext& context, const PeerGroup& group) {
  return Launch(context, dim3(1), dim3(32), 0, PeerExchangeKernel, group);
}

cudaError_t PeerSend(const LaunchContext& context, const PeerMessageArgs& args) {
  if (!IsValid(args, args.group.rank, args.peer)) return cudaErrorInvalidValue;
  return Launch(context, dim3(kMessageBlocks), dim3(kThreads), 0, PeerSendKernel, args);
}

cudaError_t PeerRecv(const LaunchContext& context, const PeerMessageArgs& args) {
  if (!IsValid(args, args.peer, args.group.rank)) return cudaErrorInvalidValue;
  return Launch(context, dim3(kMessageBlocks), dim3(kThreads), 0, PeerRecvKernel, args);
}

cudaError_t PreloadPeerMessages() {
  cudaFuncAttributes attributes;
  for (const cudaError_t error : {cudaFuncGetAttributes(&attributes, PeerGatherKernel),
                                  cudaFuncGetAttributes(&attributes, PeerExchangeKernel),
                                  cudaFuncGetAttributes(&attributes, PeerSendKernel),
                                  cudaFuncGetAttributes(&attributes, PeerRecvKernel)}) {
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace fathom::kernels::cuda
