// worker/comm/cuda/nccl_comm.h: a DeviceComm by NCCL, for GPUs that cannot map each other's memory
// and for the largest messages. The bits are those of docs/NUMERICS.md, "All-reduce": of two ranks
// ncclAllReduce makes the sum, which is rounded once; of more, each rank receives its share of the
// rows from all others, sums it in rank order, and the ranks gather the sums (a ring would start
// each part at another rank and round at each hop). Then the residual and the norm by
// kernels/cuda/rows/rmsnorm.h.
//
// A communicator lives for one epoch. It does not block: the thread that enqueues never waits for a
// peer without looking at Abort and the deadline. A thread of the comm (the watchdog) asks NCCL for
// errors; after an error or Abort it calls ncclCommAbort, which ends the kernels that wait.
// REQUIRES for the destructor: graphs that captured the comm are destroyed, since NCCL waits for
// them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/clock.h"
#include "kernels/tensor.h"
#include "worker/comm/cuda/nccl_library.h"
#include "worker/comm/device_comm.h"

namespace fathom::worker {

struct NcclCommOptions {
  int device = 0;  // Of CUDA, in this process.
  int rank = 0;
  int size = 0;  // 1 to 8.
  kernels::DType dtype = kernels::DType::kBf16;
  int hidden = 0;  // A multiple of 8.
  int rows_max = 0;
  int64_t exchange_bytes = 0;      // Of the rows that a rank writes for an exchange.
  std::string id;                  // MakeNcclId of rank 0.
  const Clock* clock = nullptr;    // Outlives the comm.
  int64_t deadline_us = 30000000;  // For the start, and for each call.
  const char* library = kNcclLibrary;
};

// For rank 0: what every rank of a new communicator needs, as opaque bytes for GroupExchange.
absl::StatusOr<std::string> MakeNcclId(const char* library = kNcclLibrary);

// Waits until all ranks have called it. INVALID_ARGUMENT: sizes out of range, or the id is none or
// comes from another version of NCCL. FAILED_PRECONDITION: no NCCL here. DEADLINE_EXCEEDED: a rank
// did not come. RESOURCE_EXHAUSTED: the device has not enough memory. UNAVAILABLE: NCCL's error.
absl::StatusOr<std::unique_ptr<DeviceComm>> MakeNcclComm(const NcclCommOptions& options);

}  // namespace fathom::worker
