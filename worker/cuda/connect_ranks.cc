#include "worker/cuda/connect_ranks.h"

#include <cuda_runtime_api.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/log.h"
#include "modeling/layout/cuda_step_buffers.h"
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

// The ranks of a comm, in the order of their ranks in it.
struct Circle {
  const char* what = "";
  std::vector<int32_t> ranks;
  int own = 0;     // The rank of this rank in the comm.
  int hidden = 0;  // Of the rows that are summed; 0: none are.
  kernels::cuda::PeerRegionSizes sizes;
};

std::vector<std::string> OfCircle(const Circle& circle, const std::vector<std::string>& all) {
  std::vector<std::string> mine;
  for (const int32_t rank : circle.ranks) mine.push_back(all[static_cast<size_t>(rank)]);
  return mine;
}

Circle StageCircle(const GroupSeat& seat, const RankConnection& wanted) {
  const GroupShape shape = seat.shape();
  Circle circle{.what = "sums",
                .own = wanted.model->place.tp_rank,
                .hidden = wanted.model->hidden,
                .sizes = PeerSizesOf(*wanted.model, wanted.limits)};
  for (int32_t tp_rank = 0; tp_rank < shape.tp; ++tp_rank) {
    circle.ranks.push_back(shape.RankAt(wanted.model->place.stage, tp_rank));
  }
  return circle;
}

Circle ColumnCircle(const GroupSeat& seat, const RankConnection& wanted, const char* what,
                    const kernels::cuda::PeerRegionSizes& sizes) {
  const GroupShape shape = seat.shape();
  Circle circle{.what = what, .own = wanted.model->place.stage, .sizes = sizes};
  for (int32_t stage = 0; stage < shape.pp; ++stage) {
    circle.ranks.push_back(shape.RankAt(stage, wanted.model->place.tp_rank));
  }
  return circle;
}

// OK with a null comm: some rank of the group cannot map a peer's memory, for `why`.
absl::StatusOr<std::unique_ptr<DeviceComm>> ByPeerMemory(GroupLink& group,
                                                         const RankConnection& wanted,
                                                         const Circle& circle, std::string* why) {
  if (!OnOneHost(group.seat())) {
    *why = "the ranks are on several hosts";
    return nullptr;
  }
  auto comm = PeerComm::Create({.device = CurrentDevice(),
                                .rank = circle.own,
                                .dtype = wanted.dtype,
                                .hidden = circle.hidden,
                                .sizes = circle.sizes});
  FATHOM_ASSIGN_OR_RETURN(
      const std::vector<std::string> handles,
      group.Exchange(comm.ok() ? (*comm)->LocalHandle() : Cannot(comm.status())));
  *why = ReasonOf(handles);
  if (!why->empty()) return nullptr;
  const absl::Status opened = (*comm)->Open(OfCircle(circle, handles));
  FATHOM_ASSIGN_OR_RETURN(const std::vector<std::string> results,
                          group.Exchange(opened.ok() ? "open" : Cannot(opened)));
  // A rank of another build or with other sizes makes every way impossible.
  if (opened.code() == absl::StatusCode::kInvalidArgument) return opened;
  *why = ReasonOf(results);
  if (!why->empty()) return nullptr;
  return std::unique_ptr<DeviceComm>(*std::move(comm));
}

absl::StatusOr<std::unique_ptr<DeviceComm>> ByNccl(GroupLink& group, const RankConnection& wanted,
                                                   const Circle& circle) {
  std::string mine;
  if (circle.own == 0) {
    const auto id = MakeNcclId();
    mine = id.ok() ? *id : Cannot(id.status());
  }
  FATHOM_ASSIGN_OR_RETURN(const std::vector<std::string> ids, group.Exchange(mine));
  if (const std::string why = ReasonOf(ids); !why.empty()) return FailedPrecondition("{}", why);
  return MakeNcclComm({.device = CurrentDevice(),
                       .rank = circle.own,
                       .size = static_cast<int>(circle.ranks.size()),
                       .dtype = wanted.dtype,
                       .hidden = circle.hidden,
                       .rows_max = static_cast<int>(circle.sizes.rows_max),
                       .exchange_bytes = circle.sizes.exchange_bytes,
                       .id = OfCircle(circle, ids).front(),
                       .clock = wanted.clock});
}

absl::StatusOr<std::unique_ptr<DeviceComm>> ConnectCircle(GroupLink& group,
                                                          const RankConnection& wanted,
                                                          const Circle& circle) {
  std::string why;
  FATHOM_ASSIGN_OR_RETURN(std::unique_ptr<DeviceComm> comm,
                          ByPeerMemory(group, wanted, circle, &why));
  if (comm == nullptr) {
    LogWarn("no peer memory between the GPUs of the group, NCCL is used for {}: {}", circle.what,
            why);
    auto nccl = ByNccl(group, wanted, circle);
    if (!nccl.ok()) {
      return Annotate(
          nccl.status(),
          fmt::format("the GPUs of the group cannot be connected; peer memory: {}; NCCL", why));
    }
    comm = *std::move(nccl);
  }
  LogInfo("{} of {} exchanges {} over {}", comm->rank(), comm->size(), circle.what, comm->name());
  return comm;
}

}  // namespace

int64_t RankComms::WaitedUs() const {
  int64_t us = 0;
  for (const DeviceComm* comm : {layers.get(), rows.get(), samples.get()}) {
    if (comm != nullptr) us += comm->WaitedUs();
  }
  return us;
}

void RankComms::Abort() const {
  for (DeviceComm* comm : {layers.get(), rows.get(), samples.get()}) {
    if (comm != nullptr) comm->Abort();
  }
}

absl::StatusOr<RankComms> ConnectRanks(GroupLink& group, const RankConnection& wanted) {
  const GroupSeat& seat = group.seat();
  RankComms comms;
  // Every rank makes the same exchanges in the same order.
  if (seat.shape().tp > 1) {
    FATHOM_ASSIGN_OR_RETURN(comms.layers, ConnectCircle(group, wanted, StageCircle(seat, wanted)));
  }
  if (seat.shape().pp > 1) {
    const StagePeerSizes sizes = StageSizesOf(*wanted.model, wanted.limits);
    FATHOM_ASSIGN_OR_RETURN(
        comms.rows, ConnectCircle(group, wanted, ColumnCircle(seat, wanted, "rows", sizes.rows)));
    FATHOM_ASSIGN_OR_RETURN(
        comms.samples,
        ConnectCircle(group, wanted, ColumnCircle(seat, wanted, "samples", sizes.samples)));
  }
  return comms;
}

}  // namespace fathom::worker
