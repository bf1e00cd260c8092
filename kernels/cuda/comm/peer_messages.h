// kernels/cuda/comm/peer_messages.h: small data between ranks over peer memory: all-gather (e.g.
// candidates of a vocabulary-parallel sampler), and messages between two ranks (activations and
// sampled ids between pipeline stages). The bytes arrive as they were; nothing is computed.
//
// An exchange: each rank writes rows into its own region, the ranks meet, and the next kernels read
// the others' rows there. A rank may write its rows again only after a later meeting, at which
// every peer has ended the kernels that read them.
//
// The other kernels here have kMessageBlocks thread blocks, and a thread block always has the same
// bytes of a buffer, whatever the size: 4 KiB in turn. So what one thread block waited for is
// enough for its own bytes.
//
// All-gather: each rank writes its part to its own region, in one of two buffers in turn; the ranks
// meet; each reads all parts. A buffer is written again after the next gather's meeting, at which
// every peer has ended the kernel that read it.
//
// A message: thread block b of the sender writes its bytes into the receiver's region, in one of
// mail_places places in turn, and then counts mail_sent[b][sender] there. Thread block b of the
// receiver waits for it, copies, and then counts mail_taken[b][receiver] in the sender's region.
// The sender waits before it writes while mail_places messages are not taken. A send and its
// receive have the same number of bytes, and the messages between two ranks are received in the
// order of their sends. If the region has room for fewer senders than there are other ranks, only
// those send.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"
#include "kernels/cuda/comm/peer_region.h"

namespace fathom::kernels::cuda {

struct PeerGatherArgs {
  PeerGroup group;
  const void* mine = nullptr;  // [bytes]
  void* all = nullptr;         // [ranks][bytes], in rank order.
  int64_t bytes = 0;           // A multiple of 4, at most the region's gather_bytes.
};
cudaError_t PeerGather(const LaunchContext& context, const PeerGatherArgs& args);

// The meeting of an exchange.
cudaError_t PeerExchange(const LaunchContext& context, const PeerGroup& group);

struct PeerMessageArgs {
  PeerGroup group;
  int peer = 0;                // Another rank.
  const void* data = nullptr;  // [bytes], of a send.
  void* to = nullptr;          // [bytes], of a receive.
  int64_t bytes = 0;           // A multiple of 4, at most the region's mail_bytes.
};
cudaError_t PeerSend(const LaunchContext& context, const PeerMessageArgs& args);
cudaError_t PeerRecv(const LaunchContext& context, const PeerMessageArgs& args);

// As PreloadOneShotKernels (kernels/cuda/comm/all_reduce.h).
cudaError_t PreloadPeerMessages();

}  // namespace fathom::kernels::cuda
