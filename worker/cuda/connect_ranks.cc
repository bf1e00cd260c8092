#include "worker/cuda/connect_ranks.h"

#include <cuda_runtime_api.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/log.h"
#include "worker/comm/cuda/nccl_comm.h"
#include "worker/comm/cuda/peer_comm.h"
#include "worker/cuda/cuda_check.h"

namespace fathom::worker {
namespace {

// The bytes of a rank that cannot take a way begin with it; the reason follows.
constexpr std::string_view kCannot = "cannot: ";

std::string Cannot(const absl::Status& status) {
  return std::string(kCannot) + std::string(Message(status));
}

// The first reason among the bytes of all ranks; empty: every rank can.
std::string ReasonOf(const std::vector<std::string>& all) {
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (!all[rank].starts_with(kCannot)) continue;
    return fmt::format("rank {}: {}", rank, all[rank].substr(kCannot.size()));
  }
  return {};
}

bool OnOneHost(const GroupSeat& seat) {
  for (const GroupPeer& peer : seat.peers) {
    if (!OnOneMachine(peer, seat.peers.front())) return false;
  }
  return true;
}

int CurrentDevice() {
  int device = 0;
  FATHOM_CUDA(cudaGetDevice(&device));
  return device;
}

// OK with a null comm: some rank cannot map a peer's memory, for `why`.
absl::StatusOr<std::unique_ptr<DeviceComm>> ByPeerMemory(GroupLink& group,
                                                         const RankConnection& wanted,
                                                         std::string* why) {
  const RankPlace& place = wanted.model->place;
  if (!OnOneHost(group.seat())) {
    *why = "the ranks are on several hosts";
    return nullptr;
  }
  auto comm = PeerComm::Create({.device = CurrentDevice(),
                                .rank = place.tp_rank,
                                .dtype = wanted.dtype,
                                .hidden = wanted.model->hidden,
                                .sizes = wanted.sizes});
  FATHOM_ASSIGN_OR_RETURN(
      const std::vector<std::string> handles,
      group.Exchange(comm.ok() ? (*comm)->LocalHandle() : Cannot(comm.status())));
  *why = ReasonOf(handles);
  if (!why->empty()) return nullptr;
  const absl::Status opened = (*comm)->Open(handles);
  FATHOM_ASSIGN_OR_RETURN(const std::vector<std::string> results,
                          group.Exchange(opened.ok() ? "open" : Cannot(opened)));
  // A rank of another build or with other sizes makes every way impossible.
  if (opened.code() == absl::StatusCode::kInvalidArgument) return opened;
  *why = ReasonOf(results);
  if (!why->empty()) return nullptr;
  return std::unique_ptr<DeviceComm>(*std::move(comm));
}

absl::StatusOr<std::unique_ptr<DeviceComm>> ByNccl(GroupLink& group, const RankConnection& wanted) {
  const RankPlace& place = wanted.model->place;
  std::string mine;
  if (place.tp_rank == 0) {
    const auto id = MakeNcclId();
    mine = id.ok() ? *id : Cannot(id.status());
  }
  FATHOM_ASSIGN_OR_RETURN(const std::vector<std::string> ids, group.Exchange(mine));
  if (const std::string why = ReasonOf(ids); !why.empty()) return FailedPrecondition("{}", why);
  return MakeNcclComm({.device = CurrentDevice(),
                       .rank = place.tp_rank,
                       .size = place.tp,
                       .dtype = wanted.dtype,
                       .hidden = wanted.model->hidden,
                       .rows_max = static_cast<int>(wanted.sizes.rows_max),
                       .exchange_bytes = wanted.sizes.exchange_bytes,
                       .id = ids.front(),
                       .clock = wanted.clock});
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceComm>> ConnectRanks(GroupLink& group,
                                                         const RankConnection& wanted) {
  std::string why;
  FATHOM_ASSIGN_OR_RETURN(std::unique_ptr<DeviceComm> comm, ByPeerMemory(group, wanted, &why));
  if (comm == nullptr) {
    LogWarn("no peer memory between the GPUs of the group, NCCL is used: {}", why);
    auto nccl = ByNccl(group, wanted);
    if (!nccl.ok()) {
      return Annotate(
          nccl.status(),
          fmt::format("the GPUs of the group cannot be connected; peer memory: {}; NCCL", why));
    }
    comm = *std::move(nccl);
  }
  LogInfo("rank {} of {} sums over {}", comm->rank(), comm->size(), comm->name());
  return comm;
}

}  // namespace fathom::worker
