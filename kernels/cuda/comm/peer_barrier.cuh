// kernels/cuda/comm/peer_barrier.cuh: how kernels of several ranks wait for each other in the
// memory of a PeerRegion, without the host.
//
// A meeting (MeetPeers): thread block b of each rank adds one to its own counter meetings[b],
// stores the new number to met[b][rank] in the region of every peer (st.release.sys) and waits
// until its own met[b][.] have reached it (ld.acquire.sys). Every kernel waits for the previous
// kernel of its stream first (launch.h, rule 1). Therefore a meeting of any thread block means: on
// every rank all kernels before this one have ended, and what they wrote can be read here.
//
// Every rank runs the same kernels with the same grids in the same order, so the counters of thread
// block b are equal on all ranks. All thread blocks of a kernel are on the device at once; if one
// had to wait for the end of another one, which waits for a peer's, both could wait forever. A
// kernel lets the next one start before it meets: the device starts thread blocks of the next
// kernel only when all of this one's are there, so they take no room from them.
//
// The end of a wait: the host sets CommHostWords::abort. The thread that sees it sets `aborted` in
// its own region, and the kernel returns; each later kernel that meets peers returns at once, and a
// push ends its wait after kPollsPerAbortCheck polls. Results are then void, also those of later
// kernels that read them.
#pragma once

#include "kernels/cuda/base/ptx.cuh"
#include "kernels/cuda/comm/peer_region.h"

namespace fathom::kernels::cuda {

// A poll takes about half a microsecond, a look at host memory one to two.
inline constexpr uint32_t kPollsPerAbortCheck = 256;

FATHOM_DEVICE PeerRegionHeader* HeaderOf(const PeerGroup& group, int rank) {
  return reinterpret_cast<PeerRegionHeader*>(group.regions[rank]);
}
template <class T>
FATHOM_DEVICE T* InRegion(const PeerGroup& group, int rank, int64_t offset) {
  return reinterpret_cast<T*>(group.regions[rank] + offset);
}

FATHOM_DEVICE bool IsAborted(const PeerRegionHeader* own) {
  return ptx::LoadRelaxed(&own->aborted) != 0;
}

// Returns whether the word has reached `number`; false: the comm was aborted.
FATHOM_DEVICE bool WaitForNumber(const uint32_t* word, uint32_t number, const PeerGroup& group) {
  for (uint32_t polls = 1;; ++polls) {
    if (static_cast<int32_t>(ptx::LoadAcquireSystem(word) - number) >= 0) return true;
    if (polls % kPollsPerAbortCheck != 0 || ptx::LoadRelaxedSystem(&group.host->abort) == 0) {
      continue;
    }
    ptx::StoreRelaxed(&HeaderOf(group, group.rank)->aborted, 1);
    return false;
  }
}

// The thread that tells the host what its kernel begins, and that measures the kernel's wait.
FATHOM_DEVICE bool Reports() { return blockIdx.x == 0 && threadIdx.x == 0; }

// One wait of a kernel, by the thread that reports. A kernel loads the sum of the waits before it
// meets the peers, so that no peer waits for the load, and stores the new sum after it. The host
// gets a sum with the next report, because a store of its own would be one more write to the host.
class MeasuredWait {
 public:
  __device__ __forceinline__ void Load(const PeerRegionHeader* own) {
    if (Reports()) waited_ns_ = own->waited_ns;
  }
  __device__ __forceinline__ void Begin(const PeerGroup& group, CommOp op, uint32_t number) {
    if (!Reports()) return;
    ptx::StoreRelaxedSystem(&group.host->progress, static_cast<uint64_t>(op) << 32 | number,
                            waited_ns_);
    begin_ns_ = ptx::ClockNs();
  }
  __device__ __forceinline__ void End(PeerRegionHeader* own) const {
    if (Reports()) own->waited_ns = waited_ns_ + (ptx::ClockNs() - begin_ns_);
  }

 private:
  uint64_t waited_ns_ = 0, begin_ns_ = 0;
};

// All threads of the thread block call it, at least `ranks` of them, after WaitForPrevious. Returns
// the same to each: false if the comm was aborted. What the thread block wrote before the call, the
// same thread block of each peer sees after it.
FATHOM_DEVICE bool MeetPeers(const PeerGroup& group, CommOp op) {
  PeerRegionHeader* const own = HeaderOf(group, group.rank);
  const int block = blockIdx.x, peer = threadIdx.x;
  __syncthreads();
  bool alive = true;
  uint32_t number = 0;
  MeasuredWait wait;
  if (peer < group.ranks) {
    number = own->meetings[block] + 1;
    wait.Load(own);
    alive = !IsAborted(own);
    if (alive) {
      ptx::StoreReleaseSystem(&HeaderOf(group, peer)->met[block][group.rank], number);
      // After the release, which would wait until the host's memory has the word.
      wait.Begin(group, op, number);
      alive = WaitForNumber(&own->met[block][peer], number, group);
    }
  }
  alive = __syncthreads_and(alive) != 0;
  if (threadIdx.x == 0 && alive) {
    own->meetings[block] = number;
    wait.End(own);
  }
  return alive;
}

}  // namespace fathom::kernels::cuda
