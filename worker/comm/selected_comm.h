// worker/comm/selected_comm.h: a DeviceComm that takes for each all-reduce the way that
// worker/comm/select_comm.h names, over peer memory or NCCL, and peer memory for all else. Both
// sums read the same partial buffers. Threads and errors: as DeviceComm.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "common/check.h"
#include "worker/comm/device_comm.h"
#include "worker/comm/select_comm.h"

namespace fathom::worker {

class SelectedComm final : public DeviceComm {
 public:
  // REQUIRES: the same rank, size and partial buffers. `row_bytes`: of a row of an all-reduce.
  SelectedComm(std::unique_ptr<DeviceComm> peer, std::unique_ptr<DeviceComm> nccl,
               int64_t row_bytes)
      : peer_(std::move(peer)), nccl_(std::move(nccl)), row_bytes_(row_bytes) {
    FATHOM_CHECK(peer_->rank() == nccl_->rank() && peer_->size() == nccl_->size());
    for (const PartialBuffer buffer : {PartialBuffer::kA, PartialBuffer::kB}) {
      FATHOM_CHECK(peer_->Partial(buffer) == nccl_->Partial(buffer));
    }
  }

  int rank() const override { return peer_->rank(); }
  int size() const override { return peer_->size(); }
  const char* name() const override { return "peer memory and NCCL"; }
  // The last kernel of an all-reduce with a residual is ours, whoever sums.
  bool chains() const override { return true; }
  void* Partial(PartialBuffer buffer) const override { return peer_->Partial(buffer); }
  absl::Status AllReduce(const CommStream& on, const ReduceRows& rows) override {
    const auto way = SelectComm(size(), rows.rows * row_bytes_, {.peer = true, .nccl = true});
    return (way == CommWay::kNccl ? nccl_ : peer_)->AllReduce(on, rows);
  }
  absl::Status AllGather(const CommStream& on, const void* mine, void* all,
                         int64_t bytes) override {
    return peer_->AllGather(on, mine, all, bytes);
  }
  void* Rows() const override { return peer_->Rows(); }
  absl::Status ExchangeRows(const CommStream& on, int rows, int64_t row_bytes) override {
    return peer_->ExchangeRows(on, rows, row_bytes);
  }
  const void* RowsOf(int rank) const override { return peer_->RowsOf(rank); }
  absl::Status Send(const CommStream& on, int peer, const void* data, int64_t bytes) override {
    return peer_->Send(on, peer, data, bytes);
  }
  absl::Status Recv(const CommStream& on, int peer, void* to, int64_t bytes) override {
    return peer_->Recv(on, peer, to, bytes);
  }
  // An error of one is the end of both: the owner of the comm calls it (worker/comm/device_comm.h).
  void Abort() override {
    peer_->Abort();
    nccl_->Abort();
  }
  absl::Status AsyncError() const override {
    FATHOM_RETURN_IF_ERROR(nccl_->AsyncError());  // It may name the cause.
    return peer_->AsyncError();
  }
  std::string InWork() const override {
    return fmt::format("{} ({}), {} ({})", peer_->InWork(), peer_->name(), nccl_->InWork(),
                       nccl_->name());
  }

 private:
  const std::unique_ptr<DeviceComm> peer_;
  const std::unique_ptr<DeviceComm> nccl_;
  const int64_t row_bytes_;
};

}  // namespace fathom::worker
