#include "worker/cluster/group_runner.h"

#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/log.h"
#include "worker/comm/shm_comm.h"
#include "worker/engine/step_loop.h"

namespace fathom::worker {

GroupRunner::GroupRunner(const GroupRunnerOptions& options, Membership* membership,
                         Control* control, DeviceForRank device_for_rank, const Clock* clock,
                         Progress* progress, const std::atomic<bool>* stop, StepObserver observer)
    : options_(options),
      membership_(membership),
      control_(control),
      device_for_rank_(std::move(device_for_rank)),
      clock_(clock),
      progress_(progress),
      stop_(stop),
      observer_(std::move(observer)) {}

absl::Status GroupRunner::Run() {
  while (std::shared_ptr<Epoch> epoch = membership_->Next()) {
    const GroupSeat& seat = epoch->seat();
    ++epochs_;
    absl::Status status = CheckSeat(seat);
    if (status.ok()) {
      progress_->phase.store(Phase::kLoading);
      FATHOM_ASSIGN_OR_RETURN(Device* const device, device_for_rank_(seat.rank));
      status = RunSeat(*epoch, *device);
    }
    progress_->phase.store(Phase::kIdle);
    End(*epoch, status);
    LogInfo("epoch {} of term {} ended: {}", seat.epoch.value, seat.term.value,
            ToString(epoch->status()));
  }
  return absl::OkStatus();
}

void GroupRunner::End(Epoch& epoch, const absl::Status& status) {
  if (epoch.aborted()) return;
  if (!status.ok()) control_->SendFailed(epoch, ToString(status));
  epoch.Abort(status);
}

absl::Status GroupRunner::CheckSeat(const GroupSeat& seat) const {
  const EngineLimits& own = options_.limits;
  const EngineLimits& asked = seat.limits;
  if (seat.tp != options_.tp || seat.rank < 0 || seat.rank >= seat.tp) {
    return FailedPrecondition("rank {} of {} for a worker started with --tensor-parallel-size {}",
                              seat.rank, seat.tp, options_.tp);
  }
  if (asked.context_tokens > own.context_tokens || asked.block_tokens != own.block_tokens ||
      asked.pool_blocks > own.pool_blocks || asked.slots > own.slots || asked.slots < 1 ||
      asked.step_tokens > own.step_tokens || asked.vocab != own.vocab) {
    return FailedPrecondition(
        "limits beyond this worker's: context {} of {}, block {} of {}, blocks {} of {}, slots {} "
        "of {}, step "
        "{} of {} tokens, vocabulary {} of {}",
        asked.context_tokens, own.context_tokens, asked.block_tokens, own.block_tokens,
        asked.pool_blocks, own.pool_blocks, asked.slots, own.slots, asked.step_tokens,
        own.step_tokens, asked.vocab, own.vocab);
  }
  return absl::OkStatus();
}

absl::Status GroupRunner::RunSeat(Epoch& epoch, Device& device) {
  const GroupSeat& seat = epoch.seat();
  progress_->phase.store(Phase::kConnecting);
  FATHOM_ASSIGN_OR_RETURN(const std::unique_ptr<Comm> comm, Connect(epoch));
  // The abort of the region also releases the other ranks of this host from their collectives.
  int abort_comm = -1;
  if (auto* shared = dynamic_cast<ShmComm*>(comm.get())) {
    abort_comm = epoch.OnAbort([shared] { shared->Abort(); });
  }
  device.comm()->SetTarget(comm.get());
  progress_->op.store(0);
  const absl::Cleanup leave = [&] {
    epoch.Forget(abort_comm);
    device.comm()->SetTarget(nullptr);
  };
  control_->SendReady(epoch);
  LogInfo("rank {} of {} in epoch {} of term {}", seat.rank, seat.tp, seat.epoch.value,
          seat.term.value);
  const std::unique_ptr<StepChannel> channel = control_->DialSteps(epoch);
  absl::Status status =
      RunEpoch(epoch, {&device, channel.get(), clock_, progress_, stop_, observer_});
  End(epoch, status);  // Before the region is destroyed: this releases the peers that wait in a
                       // collective.
  return status;
}

absl::StatusOr<std::unique_ptr<Comm>> GroupRunner::Connect(Epoch& epoch) {
  const GroupSeat& seat = epoch.seat();
  if (seat.tp == 1) return std::make_unique<SingleRankComm>();
  for (const GroupPeer& peer : seat.peers) {
    if (peer.host != seat.peers.front().host) {
      return FailedPrecondition(
          "ranks on hosts {} and {}; on the CPU a group's ranks share one host's memory",
          seat.peers.front().host, peer.host);
    }
  }
  if (seat.rank == 0) {
    FATHOM_ASSIGN_OR_RETURN(std::unique_ptr<ShmComm> comm, ShmComm::Create(seat.tp));
    control_->SendExchange(epoch, 0, comm->name());
    return comm;
  }
  FATHOM_ASSIGN_OR_RETURN(const std::string name,
                          epoch.WaitExchange(0, 0, options_.exchange_timeout));
  FATHOM_ASSIGN_OR_RETURN(std::unique_ptr<ShmComm> comm, ShmComm::Open(name, seat.rank, seat.tp));
  return comm;
}

}  // namespace fathom::worker
