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
#include "cluster/leader_link.h"
#include "cluster/terms.h"
#include "cluster/wire.h"
#include "common/inbox.h"
#include "common/log.h"
#include "common/process.h"
#include "common/status.h"
#include "worker/cluster/grpc_step_channel.h"

namespace fathom::worker {
namespace {

namespace wire = cluster::v1;

// If a scheduler dies, the Steps streams break. The silence of a scheduler alone ends nothing here,
// so a scheduler that stops for a moment keeps its groups.
constexpr LeaderLinkOptions kLinkOptions{.silence_us = INT64_MAX, .hello_us = INT64_MAX};
constexpr size_t kOutboxMessagesMax = 1024;

template <class M>
wire::ControlUp ControlUpOf(const M& message) {
  wire::ControlUp up;
  ToWire(message, &up);
  return up;
}

}  // namespace

struct SchedulerClient::Shared {
  const Hello hello;  // Without term_seen.
  Membership* membership;
  const Progress* progress;
  const std::atomic<bool>* draining;
  const Clock* clock;
  RegisteredObserver registered;
  const ChannelOptions channel;
  std::atomic<int> hellos{0};  // Number of streams that have received the hello of a scheduler.
  std::atomic<uint32_t> leader_protocol{kProtocolMax};  // Of the hello of the last leader.

  Hello CurrentHello() const;
  Heartbeat CurrentHeartbeat(bool hears_leader) const;
};

Hello SchedulerClient::Shared::CurrentHello() const {
  Hello current = hello;
  current.term_seen = membership->term();
  if (progress->start != nullptr) {
    current.worker->startup = progress->start->Marks();
    current.worker->age_us = progress->start->AgeUs();
  }
  return current;
}

Heartbeat SchedulerClient::Shared::CurrentHeartbeat(bool hears_leader) const {
  const uint64_t op = progress->op.load(std::memory_order_relaxed);
  const DeviceWork now = progress->Now();
  return {.term = membership->term(),
          .hears_leader = hears_leader,
          .phase = draining->load() ? Phase::kDraining : progress->phase.load(),
          .step = now.step,
          .op = op,
          .collective = now.collectives,
          .progress = op + now.collectives + progress->word.load(std::memory_order_relaxed),
          .work = now.work};
}

// The stream to one address. It connects, reads and writes until it is told to end.
class SchedulerClient::Stream {
 public:
  Stream(int index, std::string address, Shared* shared)
      : index_(index),
        address_(std::move(address)),
        shared_(*shared),
        link_(kLinkOptions, RandomSeed()),
        thread_([this] { Run(); }) {}

  ~Stream() {
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
      if (context_ != nullptr) context_->TryCancel();
    }
    changed_.notify_all();
    thread_.join();
  }

  void Beat() { Send(ControlUpOf(shared_.CurrentHeartbeat(HearsLeader(shared_.clock->Now())))); }

  // Sends on the current call; drops the message if there is none.
  void Send(wire::ControlUp message) {
    std::lock_guard lock(mutex_);
    if (outbox_ != nullptr && !outbox_->TryPush(std::move(message)) && context_ != nullptr) {
      context_->TryCancel();  // A scheduler that does not read counts as lost.
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
  // Waits until the next dial is due. Returns false if the stream was told to end.
  bool Pause();
  void WriteAll(Call* call, Inbox<wire::ControlUp>* outbox);
  absl::Status Hear(wire::ControlDown* down, bool* heard);
  absl::Status HearHello(const Hello& hello, bool* heard);
  void HearGroup(GroupSeat group);
  bool HearTerm(TermId term);
  void StepDown();
  bool HearsLeader(TimeUs now);

  const int index_;
  const std::string address_;
  Shared& shared_;

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  bool stopped_ = false;
  LeaderLink link_;
  grpc::ClientContext* context_ = nullptr;    // The context of the current call.
  Inbox<wire::ControlUp>* outbox_ = nullptr;  // The outbox of the current call.

  std::thread thread_;  // The last member, because it uses all others.
};

void SchedulerClient::Stream::Run() {
  std::string told;
  do {
    bool heard = false;
    {
      std::lock_guard lock(mutex_);
      link_.Dialled(shared_.clock->Now());
    }
    const absl::Status status = RunOnce(&heard);
    {
      std::lock_guard lock(mutex_);
      link_.Ended(shared_.clock->Now());
    }
    shared_.membership->Lose(index_, fmt::format("the control stream to {} ended", address_));
    if (heard) {
      shared_.registered(--shared_.hellos);
      told.clear();
    }
    // Logs each new reason once, because it may stay the same for hours.
    if (const std::string text = ToString(status); text != told && !stopped()) {
      LogWarn("control stream to {}: {}", address_, text);
      told = text;
    }
  } while (Pause());
}

bool SchedulerClient::Stream::Pause() {
  std::unique_lock lock(mutex_);
  const int64_t wait_us = std::max<int64_t>(0, link_.next_dial_us() - shared_.clock->Now());
  return !changed_.wait_for(lock, std::chrono::microseconds(wait_us), [this] { return stopped_; });
}

absl::Status SchedulerClient::Stream::RunOnce(bool* heard) {
  const auto stub = wire::Scheduler::NewStub(MakeChannel(address_, shared_.channel));
  grpc::ClientContext context;
  Inbox<wire::ControlUp> outbox(kOutboxMessagesMax);
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return Cancelled("the worker leaves");
    context_ = &context;
  }
  const std::unique_ptr<Call> call = stub->Control(&context);
  absl::Status status;
  if (call->Write(ControlUpOf(shared_.CurrentHello()))) {
    {
      std::lock_guard lock(mutex_);
      outbox_ = &outbox;
    }
    std::thread writer([&] { WriteAll(call.get(), &outbox); });
    wire::ControlDown down;
    while (status.ok() && call->Read(&down)) status = Hear(&down, heard);
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
      message = ControlUpOf(shared_.CurrentHeartbeat(HearsLeader(now)));
      next_beat_us = std::max(next_beat_us + kHeartbeatUs, now);
    }
    if (message && !call->Write(*message)) return;
  }
}

bool SchedulerClient::Stream::HearsLeader(TimeUs now) {
  std::lock_guard lock(mutex_);
  return link_.HearsLeader(now);
}

void SchedulerClient::Stream::StepDown() {
  std::lock_guard lock(mutex_);
  link_.StepDown();
}

// Returns false if the message has an older term or one that is not credible. The sender then gets
// the term of this worker.
bool SchedulerClient::Stream::HearTerm(TermId term) {
  switch (shared_.membership->Hear(term)) {
    case TermVerdict::kObeyed:
      return true;
    case TermVerdict::kStale:
      StepDown();
      Send(ControlUpOf(shared_.CurrentHeartbeat(/*hears_leader=*/false)));
      return false;
    case TermVerdict::kNotCredible:
      break;
  }
  LogError("{} tells term {}, more than {} above the highest one known here, {}; it is not obeyed",
           address_, term.value, kTermLeadMax, shared_.membership->term().value);
  return false;
}

absl::Status SchedulerClient::Stream::Hear(wire::ControlDown* down, bool* heard) {
  FATHOM_ASSIGN_OR_RETURN(ControlDownMessage message, FromWire(std::move(*down)));
  {
    std::lock_guard lock(mutex_);
    link_.Heard(std::holds_alternative<Heartbeat>(message), shared_.clock->Now());
  }
  if (const auto* hello = std::get_if<Hello>(&message)) return HearHello(*hello, heard);
  if (const auto* beat = std::get_if<Heartbeat>(&message)) {
    HearTerm(beat->term);
  } else if (const auto* group = std::get_if<GroupSeat>(&message)) {
    HearGroup(*group);
  } else if (auto* exchange = std::get_if<GroupExchange>(&message)) {
    shared_.membership->PushExchange(exchange->epoch,
                                     {exchange->round, exchange->rank, std::move(exchange->bytes)});
  } else if (const auto* abort = std::get_if<Abort>(&message)) {
    if (HearTerm(abort->term)) {
      shared_.membership->Abort(abort->term, abort->epoch, abort->reason);
    }
  } else if (std::holds_alternative<Resign>(message)) {
    StepDown();
  } else {
    return Unimplemented("Drain: not built; SIGTERM drains this worker and its group");
  }
  return absl::OkStatus();
}

absl::Status SchedulerClient::Stream::HearHello(const Hello& hello, bool* heard) {
  FATHOM_RETURN_IF_ERROR(CheckSchedulerHello(hello));
  if (!*heard) shared_.registered(++shared_.hellos);
  *heard = true;
  const bool leads = hello.scheduler->leader && HearTerm(hello.scheduler->term);
  if (leads) shared_.leader_protocol = CommonProtocol(hello);
  std::lock_guard lock(mutex_);
  link_.HeardHello(leads, shared_.clock->Now());
  return absl::OkStatus();
}

void SchedulerClient::Stream::HearGroup(GroupSeat group) {
  if (!HearTerm(group.term)) return;
  group.limits.pool_blocks = group.blocks;
  shared_.membership->Join(group, index_);
}

SchedulerClient::SchedulerClient(std::vector<std::string> addresses, const TlsFiles& tls,
                                 Hello hello, Membership* membership, const Progress* progress,
                                 const std::atomic<bool>* draining, const Clock* clock,
                                 RegisteredObserver registered)
    : addresses_(std::move(addresses)),
      shared_(new Shared{std::move(hello), membership, progress, draining, clock,
                         std::move(registered), ToScheduler(tls)}) {
  for (size_t i = 0; i < addresses_.size(); ++i) {
    streams_.push_back(std::make_unique<Stream>(static_cast<int>(i), addresses_[i], shared_.get()));
  }
}

SchedulerClient::~SchedulerClient() = default;

void SchedulerClient::Beat() {
  for (const std::unique_ptr<Stream>& stream : streams_) stream->Beat();
}

bool SchedulerClient::LeaderDrains() const { return shared_->leader_protocol >= kProtocol2; }

void SchedulerClient::SendExchange(const Epoch& epoch, int32_t round, const std::string& bytes) {
  const GroupSeat& seat = epoch.seat();
  StreamOf(epoch).Send(ControlUpOf(GroupExchange{seat.epoch, round, seat.rank, bytes}));
}

void SchedulerClient::SendReady(const Epoch& epoch) {
  const GroupSeat& seat = epoch.seat();
  StreamOf(epoch).Send(ControlUpOf(GroupReady{seat.term, seat.epoch, seat.rank,
                                              shared_->progress->start == nullptr
                                                  ? std::vector<StartMark>()
                                                  : shared_->progress->start->Marks()}));
}

void SchedulerClient::SendFailed(const Epoch& epoch, const std::string& message) {
  const GroupSeat& seat = epoch.seat();
  StreamOf(epoch).Send(ControlUpOf(GroupFailed{seat.term, seat.epoch, seat.rank, message}));
}

std::unique_ptr<StepChannel> SchedulerClient::DialSteps(Epoch& epoch) {
  return worker::DialSteps(addresses_[static_cast<size_t>(epoch.source())], shared_->channel,
                           shared_->hello.process_id, epoch);
}

SchedulerClient::Stream& SchedulerClient::StreamOf(const Epoch& epoch) {
  return *streams_[static_cast<size_t>(epoch.source())];
}

}  // namespace fathom::worker
