#include "worker/cluster/scheduler_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "cluster.grpc.pb.h"
#include "cluster/channel.h"
#include "cluster/terms.h"
#include "cluster/wire_ranges.h"
#include "common/inbox.h"
#include "common/log.h"
#include "common/status.h"
#include "worker/cluster/grpc_step_channel.h"

namespace fathom::worker {
namespace {

namespace wire = cluster::v1;

constexpr uint32_t kProtocolMin = 1;
constexpr uint32_t kProtocolMax = 1;
constexpr int64_t kHeartbeatUs = 250'000;
constexpr int64_t kLeaderSilenceUs = 1'500'000;
constexpr std::chrono::milliseconds kBackOffMin{50}, kBackOffMax{100};
constexpr size_t kOutboxMessagesMax = 1024;

wire::Phase PhaseToWire(WorkerPhase phase) {
  switch (phase) {
    case WorkerPhase::kStarting:
      return wire::PHASE_STARTING;
    case WorkerPhase::kIdle:
      return wire::PHASE_IDLE;
    case WorkerPhase::kLoading:
      return wire::PHASE_LOADING;
    case WorkerPhase::kConnecting:
      return wire::PHASE_CONNECTING;
    case WorkerPhase::kStepping:
      return wire::PHASE_STEPPING;
    case WorkerPhase::kDraining:
      return wire::PHASE_DRAINING;
  }
  return wire::PHASE_UNSPECIFIED;
}

Seat SeatFrom(const wire::Group& group, int source) {
  Seat seat;
  seat.term = {group.term()};
  seat.epoch = {group.epoch()};
  seat.source = source;
  seat.group = group.group();
  seat.rank = group.rank();
  seat.tp = group.tp();
  for (const wire::Peer& peer : group.peers()) seat.hosts.push_back(peer.host());
  const wire::WorkerLimits& limits = group.limits();
  seat.limits = {limits.context_tokens(),
                 limits.block_tokens(),
                 group.blocks(),
                 limits.slots(),
                 limits.step_tokens(),
                 limits.vocab(),
                 limits.mixed_step_tokens()};
  return seat;
}

}  // namespace

struct SchedulerClient::Shared {
  WorkerFacts facts;
  Membership* membership;
  const Progress* progress;
  const std::atomic<bool>* draining;
  const Clock* clock;
  RegisteredObserver registered;
  std::atomic<int> hellos{0};  // Streams that have heard a scheduler's hello.

  wire::ControlUp Hello() const;
  wire::ControlUp Heartbeat(bool hears_leader) const;
};

wire::ControlUp SchedulerClient::Shared::Hello() const {
  wire::ControlUp up;
  wire::Hello* hello = up.mutable_hello();
  hello->set_process_id(facts.process_id);
  hello->set_role(wire::ROLE_WORKER);
  hello->set_protocol_min(kProtocolMin);
  hello->set_protocol_max(kProtocolMax);
  hello->set_build(facts.build);
  hello->set_term_seen(membership->term().value);
  hello->set_config_digest(facts.config_digest);
  wire::WorkerHello* worker = hello->mutable_worker();
  worker->set_host(facts.host);
  worker->set_device(facts.device);
  worker->set_memory_bytes(facts.memory_bytes);
  worker->set_model(facts.model);
  worker->set_weights_digest(facts.weights_digest);
  worker->set_fingerprint(facts.fingerprint);
  worker->set_tp(facts.tp);
  worker->set_pp(1);
  worker->set_preferred_rank(facts.preferred_rank);
  worker->set_health_address(facts.health_address);
  worker->set_device_kind(facts.device_kind);
  worker->set_dtype(facts.dtype);
  worker->set_recipe(facts.recipe);
  wire::WorkerLimits* limits = worker->mutable_limits();
  limits->set_context_tokens(facts.limits.context_tokens);
  limits->set_block_tokens(facts.limits.block_tokens);
  limits->set_pool_blocks(facts.limits.pool_blocks);
  limits->set_slots(facts.limits.slots);
  limits->set_step_tokens(facts.limits.step_tokens);
  limits->set_vocab(facts.limits.vocab);
  limits->set_mixed_step_tokens(facts.limits.mixed_step_tokens);
  return up;
}

wire::ControlUp SchedulerClient::Shared::Heartbeat(bool hears_leader) const {
  wire::ControlUp up;
  wire::Heartbeat* beat = up.mutable_heartbeat();
  const uint64_t op = progress->op.load(std::memory_order_relaxed);
  const uint64_t collective = progress->collective.load(std::memory_order_relaxed);
  beat->set_term(membership->term().value);
  beat->set_hears_leader(hears_leader);
  beat->set_phase(draining->load() ? wire::PHASE_DRAINING : PhaseToWire(progress->phase.load()));
  beat->set_step(progress->step.load(std::memory_order_relaxed));
  beat->set_op(op);
  beat->set_collective(collective);
  beat->set_progress(op + collective + progress->word.load(std::memory_order_relaxed));
  return up;
}

// One address: connects, reads and writes until it is told to end.
class SchedulerClient::Stream {
 public:
  Stream(int index, std::string address, Shared* shared)
      : index_(index), address_(std::move(address)), shared_(*shared), thread_([this] { Run(); }) {}

  ~Stream() {
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
      if (context_ != nullptr) context_->TryCancel();
    }
    changed_.notify_all();
    thread_.join();
  }

  // Sends on the life of the stream that there is now, or nowhere.
  void Send(wire::ControlUp message) {
    std::lock_guard lock(mutex_);
    if (outbox_ != nullptr && !outbox_->TryPush(std::move(message)) && context_ != nullptr) {
      context_->TryCancel();  // A scheduler that does not read is gone.
    }
  }

 private:
  using Call = grpc::ClientReaderWriter<wire::ControlUp, wire::ControlDown>;

  void Run();
  absl::Status RunOnce(bool* heard);
  bool stopped() {
    std::lock_guard lock(mutex_);
    return stopped_;
  }
  // Whether it goes on.
  bool Pause(std::chrono::milliseconds time);
  void WriteAll(Call* call, Inbox<wire::ControlUp>* outbox);
  absl::Status Hear(const wire::ControlDown& down, bool* heard);
  absl::Status HearHello(const wire::Hello& hello, bool* heard);
  void HearGroup(const wire::Group& group);
  bool HearTerm(uint64_t term);

  const int index_;
  const std::string address_;
  Shared& shared_;
  std::atomic<TimeUs> leader_heard_us_{0};  // 0: no leader on this stream.

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  bool stopped_ = false;
  grpc::ClientContext* context_ = nullptr;    // Of the call in progress.
  Inbox<wire::ControlUp>* outbox_ = nullptr;  // Likewise.

  std::thread thread_;  // Last: uses all of the above.
};

void SchedulerClient::Stream::Run() {
  std::chrono::milliseconds back_off = kBackOffMin;
  std::string told;
  do {
    bool heard = false;
    const absl::Status status = RunOnce(&heard);
    leader_heard_us_ = 0;
    shared_.membership->Lose(index_, fmt::format("the control stream to {} ended", address_));
    if (heard) {
      shared_.registered(--shared_.hellos);
      back_off = kBackOffMin;
      told.clear();
    }
    // Once for each new reason: it may be the same for hours.
    if (const std::string text = ToString(status); text != told && !stopped()) {
      LogWarn("control stream to {}: {}", address_, text);
      told = text;
    }
    back_off = std::min(heard ? kBackOffMin : back_off * 2, kBackOffMax);
  } while (Pause(back_off));
}

bool SchedulerClient::Stream::Pause(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, time, [this] { return stopped_; });
}

absl::Status SchedulerClient::Stream::RunOnce(bool* heard) {
  const auto stub = wire::Scheduler::NewStub(MakeChannel(address_));
  grpc::ClientContext context;
  Inbox<wire::ControlUp> outbox(kOutboxMessagesMax);
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return Cancelled("the worker leaves");
    context_ = &context;
  }
  const std::unique_ptr<Call> call = stub->Control(&context);
  absl::Status status;
  if (call->Write(shared_.Hello())) {
    {
      std::lock_guard lock(mutex_);
      outbox_ = &outbox;
    }
    std::thread writer([&] { WriteAll(call.get(), &outbox); });
    wire::ControlDown down;
    while (status.ok() && call->Read(&down)) status = Hear(down, heard);
    context.TryCancel();
    {
      std::lock_guard lock(mutex_);
      outbox_ = nullptr;
    }
    outbox.Close();
    writer.join();
  }
  const grpc::Status ended = call->Finish();
  {
    std::lock_guard lock(mutex_);
    context_ = nullptr;
  }
  if (!status.ok()) return status;
  return Unavailable("{} {}", static_cast<int>(ended.error_code()), ended.error_message());
}

void SchedulerClient::Stream::WriteAll(Call* call, Inbox<wire::ControlUp>* outbox) {
  TimeUs next_beat_us = shared_.clock->Now();
  while (!outbox->closed()) {
    const TimeUs now = shared_.clock->Now();
    std::optional<wire::ControlUp> message;
    if (now < next_beat_us) message = outbox->PopFor(std::chrono::microseconds(next_beat_us - now));
    if (!message && shared_.clock->Now() >= next_beat_us) {
      const TimeUs heard = leader_heard_us_.load();
      message = shared_.Heartbeat(heard != 0 && now - heard < kLeaderSilenceUs);
      next_beat_us = std::max(next_beat_us + kHeartbeatUs, now);
    }
    if (message && !call->Write(*message)) return;
  }
}

// False: the message is of an older term, or of one that is not credible; the sender is told ours.
bool SchedulerClient::Stream::HearTerm(uint64_t term) {
  if (const TermId known = shared_.membership->term(); !IsCredible(TermId{term}, known)) {
    LogError(
        "{} tells term {}, more than {} above the highest one known here, {}; it is not obeyed",
        address_, term, kTermLeadMax, known.value);
    return false;
  }
  if (shared_.membership->Hear(TermId{term})) return true;
  leader_heard_us_ = 0;
  Send(shared_.Heartbeat(false));
  return false;
}

absl::Status SchedulerClient::Stream::Hear(const wire::ControlDown& down, bool* heard) {
  FATHOM_RETURN_IF_ERROR(CheckRanges(down));
  if (leader_heard_us_ != 0) leader_heard_us_ = shared_.clock->Now();
  switch (down.message_case()) {
    case wire::ControlDown::kHello:
      return HearHello(down.hello(), heard);
    case wire::ControlDown::kHeartbeat:
      HearTerm(down.heartbeat().term());
      return absl::OkStatus();
    case wire::ControlDown::kGroup:
      HearGroup(down.group());
      return absl::OkStatus();
    case wire::ControlDown::kExchange:
      shared_.membership->PushExchange(
          EpochId{down.exchange().epoch()},
          {down.exchange().round(), down.exchange().rank(), down.exchange().bytes()});
      return absl::OkStatus();
    case wire::ControlDown::kAbort:
      if (HearTerm(down.abort().term())) {
        shared_.membership->Abort(TermId{down.abort().term()}, EpochId{down.abort().epoch()},
                                  down.abort().reason());
      }
      return absl::OkStatus();
    case wire::ControlDown::kResign:
      leader_heard_us_ = 0;
      return absl::OkStatus();
    case wire::ControlDown::kDrain:
      return Unimplemented("Drain: not built; stop this worker by SIGTERM");
    case wire::ControlDown::MESSAGE_NOT_SET:
      break;
  }
  return Invalid("ControlDown.message: missing or unknown");
}

absl::Status SchedulerClient::Stream::HearHello(const wire::Hello& hello, bool* heard) {
  if (hello.protocol_min() > kProtocolMax || hello.protocol_max() < kProtocolMin) {
    return FailedPrecondition(
        "scheduler {} speaks protocols {} to {}, this worker {} to {}; update the older one",
        hello.build(), hello.protocol_min(), hello.protocol_max(), kProtocolMin, kProtocolMax);
  }
  if (!*heard) shared_.registered(++shared_.hellos);
  *heard = true;
  const bool leads = hello.scheduler().leader() && HearTerm(hello.scheduler().term());
  leader_heard_us_ = leads ? shared_.clock->Now() : 0;
  return absl::OkStatus();
}

void SchedulerClient::Stream::HearGroup(const wire::Group& group) {
  if (!HearTerm(group.term())) return;
  if (group.pp() > 1) {
    Send([&] {
      wire::ControlUp up;
      wire::GroupFailed* failed = up.mutable_failed();
      failed->set_term(group.term());
      failed->set_epoch(group.epoch());
      failed->set_rank(group.rank());
      failed->set_message("Group.pp: pipeline stages are not built");
      return up;
    }());
    return;
  }
  shared_.membership->Join(SeatFrom(group, index_));
}

SchedulerClient::SchedulerClient(std::vector<std::string> addresses, WorkerFacts facts,
                                 Membership* membership, const Progress* progress,
                                 const std::atomic<bool>* draining, const Clock* clock,
                                 RegisteredObserver registered)
    : addresses_(std::move(addresses)),
      shared_(new Shared{std::move(facts), membership, progress, draining, clock,
                         std::move(registered)}) {
  for (size_t i = 0; i < addresses_.size(); ++i) {
    streams_.push_back(std::make_unique<Stream>(static_cast<int>(i), addresses_[i], shared_.get()));
  }
}

SchedulerClient::~SchedulerClient() = default;

void SchedulerClient::SendExchange(const Seat& seat, int32_t round, const std::string& bytes) {
  wire::ControlUp up;
  wire::GroupExchange* exchange = up.mutable_exchange();
  exchange->set_epoch(seat.epoch.value);
  exchange->set_round(round);
  exchange->set_rank(seat.rank);
  exchange->set_bytes(bytes);
  streams_[static_cast<size_t>(seat.source)]->Send(std::move(up));
}

void SchedulerClient::SendReady(const Seat& seat) {
  wire::ControlUp up;
  wire::GroupReady* ready = up.mutable_ready();
  ready->set_term(seat.term.value);
  ready->set_epoch(seat.epoch.value);
  ready->set_rank(seat.rank);
  streams_[static_cast<size_t>(seat.source)]->Send(std::move(up));
}

void SchedulerClient::SendFailed(const Seat& seat, const std::string& message) {
  wire::ControlUp up;
  wire::GroupFailed* failed = up.mutable_failed();
  failed->set_term(seat.term.value);
  failed->set_epoch(seat.epoch.value);
  failed->set_rank(seat.rank);
  failed->set_message(message);
  streams_[static_cast<size_t>(seat.source)]->Send(std::move(up));
}

std::unique_ptr<StepChannel> SchedulerClient::DialSteps(Epoch& epoch) {
  return worker::DialSteps(addresses_[static_cast<size_t>(epoch.seat().source)],
                           shared_->facts.process_id, epoch);
}

}  // namespace fathom::worker
