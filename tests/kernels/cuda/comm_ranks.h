// tests/kernels/cuda/comm_ranks.h: several ranks of a comm in one process and on one device, for
// tests of kernels/cuda/comm. Each rank has a stream, a region of plain device memory and host
// words. Only .cu files of GPU tests include it.
//
// The kernels of the ranks wait for each other, so all of them must be on the device at once: the
// regions allow few thread blocks, the kernels are loaded before any of them runs, and the process
// asks for a hardware queue for each stream (the constant kQueues). Under compute-sanitizer, which
// may run one kernel at a time, the ranks take turns instead: OpenMeetings and FillInboxes make
// every rank find that its peers have arrived.
#pragma once

#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/comm/all_reduce.h"
#include "kernels/cuda/comm/peer_messages.h"
#include "kernels/cuda/comm/peer_region.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace fathom::gpu_test {

namespace comm = kernels::cuda;

// Set before the first call of CUDA, which reads it.
inline const bool kQueues = setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1) == 0;

// Whether the condition becomes true; false after a minute.
template <class Condition>
bool Eventually(const Condition& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
  }
  return true;
}

class CommRanks {
 public:
  explicit CommRanks(const comm::PeerRegionSizes& sizes) : sizes_(sizes), ranks_(sizes.ranks) {
    EXPECT_TRUE(kQueues && IsValid(sizes));
    EXPECT_CUDA(comm::PreloadPushKernels());
    EXPECT_CUDA(comm::PreloadOneShotKernels());
    EXPECT_CUDA(comm::PreloadTwoShotKernels());
    EXPECT_CUDA(comm::PreloadPeerMessages());
    const comm::PeerRegionLayout layout = LayoutOf(sizes);
    for (Rank& rank : ranks_) {
      rank.region = std::make_unique<DeviceBuffer<char>>(layout.bytes);
      EXPECT_CUDA(cudaMemset(rank.region->get(), 0, sizeof(comm::PeerRegionHeader)));
      for (const int64_t inbox : layout.inboxes) {
        EXPECT_CUDA(cudaMemset(rank.region->get() + inbox, 0, sizes.ranks * layout.inbox_stride));
      }
      EXPECT_CUDA(cudaStreamCreateWithFlags(&rank.stream, cudaStreamNonBlocking));
      EXPECT_CUDA(cudaHostAlloc(&rank.words, sizeof(*rank.words), cudaHostAllocMapped));
      *rank.words = {};
    }
    for (int r = 0; r < sizes.ranks; ++r) {
      comm::PeerGroup& group = ranks_[r].group;
      for (int peer = 0; peer < sizes.ranks; ++peer) {
        group.regions[peer] = reinterpret_cast<std::byte*>(ranks_[peer].region->get());
      }
      EXPECT_CUDA(cudaHostGetDevicePointer(&group.host, ranks_[r].words, 0));
      group.layout = layout;
      group.rank = r, group.ranks = sizes.ranks, group.blocks_max = sizes.blocks_max;
    }
    EXPECT_CUDA(cudaDeviceSynchronize());
  }
  ~CommRanks() {
    for (Rank& rank : ranks_) {
      EXPECT_CUDA(cudaStreamSynchronize(rank.stream));
      EXPECT_CUDA(cudaStreamDestroy(rank.stream));
      EXPECT_CUDA(cudaFreeHost(rank.words));
    }
  }
  CommRanks(const CommRanks&) = delete;
  CommRanks& operator=(const CommRanks&) = delete;

  int size() const { return sizes_.ranks; }
  const comm::PeerGroup& group(int rank) const { return ranks_[rank].group; }
  cudaStream_t stream(int rank) const { return ranks_[rank].stream; }
  LaunchContext context(int rank, bool dependent = true) const {
    LaunchContext context = MakeContext(dependent);
    context.stream = ranks_[rank].stream;
    return context;
  }
  template <class T>
  T* partial(int rank, int buffer) const {
    const comm::PeerGroup& g = group(rank);
    return reinterpret_cast<T*>(g.regions[rank] + g.layout.partials[buffer]);
  }

  // Calls `launch` for each rank, which launches one kernel; `pushes`: an AllReducePush.
  void ForEach(const std::function<cudaError_t(int rank)>& launch, bool pushes = false) {
    if (Sanitized()) OpenMeetings();
    if (Sanitized() && pushes) FillInboxes();
    for (int r = 0; r < size(); ++r) {
      EXPECT_CUDA(launch(r));
      if (Sanitized()) EXPECT_CUDA(cudaStreamSynchronize(stream(r)));
    }
  }
  void Abort(int rank) { __atomic_store_n(&ranks_[rank].words->abort, 1u, __ATOMIC_RELAXED); }
  uint64_t Progress(int rank) const {
    return __atomic_load_n(&ranks_[rank].words->progress, __ATOMIC_RELAXED);
  }
  comm::PeerRegionHeader Header(int rank) const {
    comm::PeerRegionHeader header;
    EXPECT_CUDA(
        cudaMemcpy(&header, group(rank).regions[rank], sizeof(header), cudaMemcpyDeviceToHost));
    return header;
  }
  // Whether the stream's work ends, which a wait for a peer that never arrives does not.
  bool Ends(int rank) const {
    cudaError_t state = cudaErrorNotReady;
    Eventually([&] { return (state = cudaStreamQuery(stream(rank))) != cudaErrorNotReady; });
    return state == cudaSuccess;
  }
  void Finish() const {
    for (int r = 0; r < size(); ++r) ASSERT_CUDA(cudaStreamSynchronize(stream(r)));
  }

 private:
  struct Rank {
    std::unique_ptr<DeviceBuffer<char>> region;
    comm::CommHostWords* words = nullptr;
    cudaStream_t stream = nullptr;
    comm::PeerGroup group;
  };

  // A number that no test reaches.
  void OpenMeetings() {
    const std::vector<uint32_t> far(comm::kCommBlocksMax * comm::kCommRanksMax, 0x40000000u);
    for (const Rank& rank : ranks_) {
      EXPECT_CUDA(
          cudaMemcpy(rank.region->get(), far.data(), far.size() * 4, cudaMemcpyHostToDevice));
    }
    EXPECT_CUDA(cudaDeviceSynchronize());
  }

  // Zeros that have come for the next push.
  void FillInboxes() {
    const comm::PeerRegionLayout& layout = group(0).layout;
    const int64_t row_words = sizes_.row_bytes_max * 2 / 4;
    std::vector<uint32_t> lines(static_cast<size_t>(layout.inbox_stride / 4));
    for (int r = 0; r < size(); ++r) {
      const comm::PeerRegionHeader header = Header(r);
      for (int64_t i = 1; i < sizes_.push_rows * row_words; i += 2) {
        lines[static_cast<size_t>(i)] = header.meetings[i / row_words] + 1;
      }
      for (const int64_t inbox : layout.inboxes) {
        for (int sender = 0; sender < size(); ++sender) {
          EXPECT_CUDA(cudaMemcpy(ranks_[r].region->get() + inbox + sender * layout.inbox_stride,
                                 lines.data(), static_cast<size_t>(layout.inbox_stride),
                                 cudaMemcpyHostToDevice));
        }
      }
    }
    EXPECT_CUDA(cudaDeviceSynchronize());
  }

  const comm::PeerRegionSizes sizes_;
  std::vector<Rank> ranks_;
};

}  // namespace fathom::gpu_test
