// worker/cuda/connect_ranks.h: connects the GPUs of a group for an epoch: the ranks of each stage,
// and the ranks of all stages with the same tp rank; each of these circles of ranks by peer memory,
// if every rank of the group can map the memory of the others of its circle, else by NCCL. All
// ranks take the same way, because each one tells the others whether it could. Thread: the engine
// thread.
#pragma once

#include <memory>

#include "common/clock.h"
#include "common/engine_limits.h"
#include "kernels/tensor.h"
#include "modeling/spec/rank_model.h"
#include "worker/comm/device_comm.h"
#include "worker/engine/group_link.h"

namespace fathom::worker {

struct RankConnection {
  const RankModel* model = nullptr;
  kernels::DType dtype = kernels::DType::kBf16;
  EngineLimits limits;  // Of the seat.
  const Clock* clock = nullptr;
};

// The comms of a rank. In those between stages its rank is its stage; there are two of them, so
// that samples do not wait for rows.
struct RankComms {
  std::unique_ptr<DeviceComm> layers;   // Of the stage; null: one rank.
  std::unique_ptr<DeviceComm> rows;     // From each stage to the next one; null: one stage.
  std::unique_ptr<DeviceComm> samples;  // From the last stage to the first one; likewise.

  bool connected() const { return layers != nullptr || rows != nullptr; }
  // Ends every wait of this rank, on the device too. Any thread.
  void Abort() const;
  // The sum of DeviceComm::WaitedUs.
  int64_t WaitedUs() const;
};

// Errors: ABORTED if the epoch ended. FAILED_PRECONDITION: neither way is possible; the message has
// the reason of both. INVALID_ARGUMENT: a rank has another build, type or size; it is named.
// RESOURCE_EXHAUSTED: the device has not enough memory. REQUIRES: the group has several ranks.
absl::StatusOr<RankComms> ConnectRanks(GroupLink& group, const RankConnection& wanted);

}  // namespace fathom::worker
