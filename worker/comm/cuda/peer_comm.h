// worker/comm/cuda/peer_comm.h: a DeviceComm over peer memory (kernels/cuda/comm): every rank maps
// the regions of all, by handles of the driver if they are in other processes. Create allocates
// this rank's region; the caller gives LocalHandle() to every rank (GroupExchange); Open maps the
// others' regions. A rank may enqueue only after every rank has opened; the first meeting would
// otherwise wait for it, until Abort.
//
// The end: a rank calls Abort, waits for its stream, and destroys the comm. A rank of another
// process that is gone leaves its memory mapped here, so a kernel that still writes there does no
// harm. REQUIRES for the destructor: the stream's work has ended.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/cuda/base/launch.h"
#include "kernels/cuda/comm/all_reduce.h"
#include "kernels/cuda/comm/peer_region.h"
#include "kernels/tensor.h"
#include "worker/comm/device_comm.h"
#include "worker/comm/peer_handle.h"

namespace fathom::worker {

struct PeerCommOptions {
  int device = 0;  // Of CUDA, in this process.
  int rank = 0;
  kernels::DType dtype = kernels::DType::kBf16;
  int hidden = 0;                        // A multiple of 8.
  kernels::cuda::PeerRegionSizes sizes;  // row_bytes_max = 2 * hidden, if there are rows.
};

class PeerComm final : public DeviceComm {
 public:
  // INVALID_ARGUMENT: sizes out of range. RESOURCE_EXHAUSTED: the device has not enough memory.
  static absl::StatusOr<std::unique_ptr<PeerComm>> Create(const PeerCommOptions& options);
  ~PeerComm() override;
  PeerComm(const PeerComm&) = delete;
  PeerComm& operator=(const PeerComm&) = delete;

  const std::string& LocalHandle() const { return local_handle_; }
  // The handles of all ranks, in rank order; called once. INVALID_ARGUMENT: a rank differs
  // (worker/comm/peer_handle.h). FAILED_PRECONDITION: the devices cannot reach each other, or a
  // region cannot be mapped; the message names the rank. The comm is then void.
  absl::Status Open(std::span<const std::string> handles);

  int rank() const override { return group_.rank; }
  int size() const override { return group_.ranks; }
  const char* name() const override { return "peer memory"; }
  bool chains() const override { return true; }
  void* Partial(PartialBuffer buffer) const override;
  // Pushed, one-shot or two-shot, by worker/comm/select_comm.h.
  absl::Status AllReduce(const CommStream& on, const ReduceRows& rows) override;
  absl::Status AllGather(const CommStream& on, const void* mine, void* all, int64_t bytes) override;
  void* Rows() const override { return RowsIn(rank()); }
  absl::Status ExchangeRows(const CommStream& on, int rows, int64_t row_bytes) override;
  const void* RowsOf(int rank) const override { return RowsIn(rank); }
  int messages_ahead() const override { return options_.sizes.mail_places; }
  absl::Status Send(const CommStream& on, int peer, const void* data, int64_t bytes) override;
  absl::Status Recv(const CommStream& on, int peer, void* to, int64_t bytes) override;
  void Abort() override;
  absl::Status AsyncError() const override;
  std::string InWork() const override;
  CommBegan Began() const override;
  int64_t WaitedUs() const override;
  CommCounts Enqueued() const override { return enqueued_; }

  // For tests and benchmarks: by the named way. REQUIRES: the ranks can take it.
  absl::Status AllReducePush(const CommStream& on, const ReduceRows& rows);
  absl::Status AllReduceOneShot(const CommStream& on, const ReduceRows& rows);
  absl::Status AllReduceTwoShot(const CommStream& on, const ReduceRows& rows);

 private:
  explicit PeerComm(const PeerCommOptions& options);
  absl::Status Allocate();
  absl::Status CheckAccess(const PeerHandle& peer) const;
  absl::Status Map(const PeerHandle& peer);
  void* RowsIn(int rank) const { return group_.regions[rank] + group_.layout.exchange; }
  kernels::cuda::LaunchContext Context(const CommStream& on) const;
  kernels::cuda::AllReduceArgs ArgsOf(const ReduceRows& rows);

  const PeerCommOptions options_;
  PeerHandle own_;
  std::string local_handle_;
  bool opened_ = false;
  int last_buffer_ = -1;
  int sms_ = 0;
  int sm_ = 0;
  kernels::cuda::PeerGroup group_;
  kernels::cuda::CommHostWords* words_ = nullptr;   // In host memory.
  bool mapped_[kernels::cuda::kCommRanksMax] = {};  // By a handle of the driver.
  std::atomic<bool> aborted_ = false;
  CommCounts enqueued_;
};

}  // namespace fathom::worker
