// worker/cuda/connect_ranks.h: connects the GPUs of a tensor-parallel group for an epoch: by peer
// memory, if every rank can map the memory of all others, else by NCCL. All ranks take the same
// way, because each one tells the others whether it could. Thread: the engine thread.
#pragma once

#include <memory>

#include "common/clock.h"
#include "kernels/cuda/comm/peer_region.h"
#include "kernels/tensor.h"
#include "modeling/spec/rank_model.h"
#include "worker/comm/device_comm.h"
#include "worker/engine/group_link.h"

namespace fathom::worker {

struct RankConnection {
  const RankModel* model = nullptr;
  kernels::DType dtype = kernels::DType::kBf16;
  kernels::cuda::PeerRegionSizes sizes;  // PeerSizesOf the model and the limits of the seat.
  const Clock* clock = nullptr;
};

// Errors: ABORTED if the epoch ended. FAILED_PRECONDITION: neither way is possible; the message has
// the reason of both. INVALID_ARGUMENT: a rank has another build, type or size; it is named.
// RESOURCE_EXHAUSTED: the device has not enough memory. REQUIRES: the group has several ranks.
absl::StatusOr<std::unique_ptr<DeviceComm>> ConnectRanks(GroupLink& group,
                                                         const RankConnection& wanted);

}  // namespace fathom::worker
