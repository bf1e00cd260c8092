#include "worker/cluster/group_runner.h"

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "common/log.h"
#include "worker/engine/group_link.h"
#include "worker/engine/step_loop.h"

namespace fathom::worker {
namespace {

// The rounds of GroupExchange.
constexpr int32_t kStageRound = 0;   // The region of a stage, from its tp rank 0.
constexpr int32_t kStagesRound = 1;  // The links between stages, from rank 0.

// Devices connect themselves after they have loaded their weights. The leader ends the epoch if it
// loses a rank, so the wait for a rank that still loads may be long.
constexpr std::chrono::minutes kDeviceExchange{10};

class EpochLink final : public GroupLink {
 public:
  EpochLink(Epoch* epoch, Control* control) : epoch_(*epoch), control_(*control) {}
  ~EpochLink() override {
    for (const int callback : callbacks_) epoch_.Forget(callback);
  }
  EpochLink(const EpochLink&) = delete;
  EpochLink& operator=(const EpochLink&) = delete;

  const GroupSeat& seat() const override { return epoch_.seat(); }
  absl::StatusOr<std::vector<std::string>> Exchange(std::string mine) override {
    const int32_t round = next_round_++;
    control_.SendExchange(epoch_, round, mine);
    std::vector<std::string> all(static_cast<size_t>(seat().shape().ranks()));
    for (size_t i = 0; i < all.size(); ++i) {
      const auto rank = static_cast<int32_t>(i);
      if (rank == seat().rank) continue;
      auto bytes = epoch_.WaitExchange(round, rank, kDeviceExchange);
      if (!bytes.ok()) return Annotate(bytes.status(), fmt::format("waiting for rank {}", rank));
      all[i] = *std::move(bytes);
    }
    all[static_cast<size_t>(seat().rank)] = std::move(mine);
    return all;
  }
  void OnAbort(std::function<void()> callback) override {
    callbacks_.push_back(epoch_.OnAbort(std::move(callback)));
  }

 private:
  Epoch& epoch_;
  Control& control_;
  int32_t next_round_ = 0;
  std::vector<int> callbacks_;
};

}  // namespace

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
    progress_->MarkStart(StartPhase::kJoined);
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
  const GroupShape& shape = options_.shape;
  if (seat.shape() != shape || seat.rank < 0 || seat.rank >= shape.ranks()) {
    return FailedPrecondition(
        "rank {} of tp {} x pp {} for a worker started with --tensor-parallel-size {} and "
        "--pipeline-parallel-size {}",
        seat.rank, seat.tp, seat.pp, shape.tp, shape.pp);
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
  progress_->phase.store(Phase::kConnecting);
  if (device.connects_itself()) {
    std::optional<EpochLink> link;
    const absl::Cleanup leave = [&] {
      link.reset();  // After it no abort can call the device.
      device.Leave();
    };
    FATHOM_RETURN_IF_ERROR(device.Join(link.emplace(&epoch, control_)));
    progress_->MarkStart(StartPhase::kConnected);
    return RunSteps(epoch, device);
  }
  FATHOM_ASSIGN_OR_RETURN(Links links, Connect(epoch));
  const int abort_links = epoch.OnAbort([&links] { links.Abort(); });
  device.comm()->SetTarget(links.comm.get(), links.stages.get());
  progress_->MarkStart(StartPhase::kConnected);
  const absl::Cleanup leave = [&] {
    epoch.Forget(abort_links);
    device.comm()->SetTarget(nullptr);
  };
  return RunSteps(epoch, device);
}

absl::Status GroupRunner::RunSteps(Epoch& epoch, Device& device) {
  const GroupSeat& seat = epoch.seat();
  progress_->op.store(0);
  progress_->MarkStart(StartPhase::kReady);
  progress_->group.store(seat.group.value);
  progress_->rank.store(seat.rank);
  const absl::Cleanup leave = [this] {
    progress_->group.store(-1);
    progress_->rank.store(-1);
  };
  control_->SendReady(epoch);
  const GroupShape shape = seat.shape();
  LogInfo("rank {} of {} (stage {} of {}, tp rank {}) in epoch {} of term {}", seat.rank,
          shape.ranks(), shape.StageOf(seat.rank), shape.pp, shape.TpRankOf(seat.rank),
          seat.epoch.value, seat.term.value);
  const std::unique_ptr<StepChannel> channel = control_->DialSteps(epoch);
  absl::Status status =
      RunEpoch(epoch, {&device, channel.get(), clock_, progress_, stop_, observer_});
  End(epoch, status);  // Before the links are destroyed: this releases the peers that wait.
  return status;
}

void GroupRunner::Links::Abort() {
  if (shared != nullptr) shared->Abort();
  if (stages != nullptr) stages->Abort();
}

absl::StatusOr<GroupRunner::Links> GroupRunner::Connect(Epoch& epoch) {
  const GroupSeat& seat = epoch.seat();
  const GroupPeer& first = seat.peers.front();
  for (size_t rank = 1; rank < seat.peers.size(); ++rank) {
    const GroupPeer& peer = seat.peers[rank];
    if (ShareMemory(first, peer)) continue;
    return FailedPrecondition(
        "rank 0 is on {} (machine {}, /dev/shm {}) and rank {} on {} (machine {}, /dev/shm {}): on "
        "the CPU the ranks of a group share memory; start them on one host, where they see the "
        "same /dev/shm",
        first.host, first.machine, first.shared_memory, rank, peer.host, peer.machine,
        peer.shared_memory);
  }
  Links links;
  FATHOM_RETURN_IF_ERROR(ConnectStage(epoch, &links));
  FATHOM_RETURN_IF_ERROR(ConnectStages(epoch, &links));
  return links;
}

absl::Status GroupRunner::ConnectStage(Epoch& epoch, Links* links) {
  const GroupShape shape = epoch.seat().shape();
  const int32_t rank = epoch.seat().rank;
  if (shape.tp == 1) {
    links->comm = std::make_unique<SingleRankComm>();
    return absl::OkStatus();
  }
  std::unique_ptr<ShmComm> comm;
  if (shape.TpRankOf(rank) == 0) {
    FATHOM_ASSIGN_OR_RETURN(comm, ShmComm::Create(shape.tp));
    control_->SendExchange(epoch, kStageRound, comm->name());
  } else {
    const int32_t maker = shape.RankAt(shape.StageOf(rank), 0);
    FATHOM_ASSIGN_OR_RETURN(const std::string name,
                            epoch.WaitExchange(kStageRound, maker, options_.exchange_timeout));
    FATHOM_ASSIGN_OR_RETURN(comm, ShmComm::Open(name, shape.TpRankOf(rank), shape.tp));
  }
  links->shared = comm.get();
  links->comm = std::move(comm);
  return absl::OkStatus();
}

absl::Status GroupRunner::ConnectStages(Epoch& epoch, Links* links) {
  const GroupShape shape = epoch.seat().shape();
  const int32_t rank = epoch.seat().rank;
  if (shape.pp == 1) return absl::OkStatus();
  if (rank == 0) {
    FATHOM_ASSIGN_OR_RETURN(links->stages,
                            ShmStages::Create(shape, RingBytes(shape, options_.messages)));
    control_->SendExchange(epoch, kStagesRound, links->stages->name());
    return absl::OkStatus();
  }
  FATHOM_ASSIGN_OR_RETURN(const std::string name,
                          epoch.WaitExchange(kStagesRound, 0, options_.exchange_timeout));
  FATHOM_ASSIGN_OR_RETURN(links->stages, ShmStages::Open(name, shape, rank));
  return absl::OkStatus();
}

}  // namespace fathom::worker
