#include "router/link/grpc_scheduler_link.h"

#include <grpcpp/channel.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "cluster.grpc.pb.h"
#include "cluster/channel.h"
#include "cluster/leader_link.h"
#include "cluster/terms.h"
#include "cluster/wire.h"
#include "common/log.h"
#include "common/process.h"
#include "router/link/route_stream.h"

namespace fathom::router {
namespace {

namespace wire = cluster::v1;

template <class M>
wire::RouteUp RouteUpOf(const M& message) {
  wire::RouteUp up;
  ToWire(message, &up);
  return up;
}

}  // namespace

class GrpcSchedulerLink::Impl {
 public:
  Impl(const GrpcSchedulerLinkOptions& options, const Clock* clock)
      : options_(options), clock_(clock), process_id_(RandomId()) {
    const ChannelOptions channel = ToScheduler(options.tls);
    for (const std::string& address : options.addresses) {
      Peer& peer = peers_.emplace_back();
      peer.address = address;
      peer.link = LeaderLink(options.link, RandomSeed());
      peer.stub = wire::Scheduler::NewStub(MakeChannel(address, channel));
    }
  }

  void Start(SchedulerEvents* events) {
    events_ = events;
    Tick();
  }

  void Tick();
  void Stop();

  bool Send(StreamId stream, wire::RouteUp message, bool bounded) {
    std::shared_ptr<RouteStream> to;
    {
      std::lock_guard lock(mutex_);
      if (stream != leader_id_ || leader_ == nullptr) return false;
      to = leader_;
    }
    return to->Send(std::move(message), bounded);
  }

  void Reset(StreamId stream) {
    std::shared_ptr<RouteStream> old;
    {
      std::lock_guard lock(mutex_);
      if (stream == leader_id_) old = leader_;
    }
    if (old) old->Cancel();
  }

 private:
  struct Peer {
    std::string address;
    std::unique_ptr<wire::Scheduler::Stub> stub;
    std::shared_ptr<RouteStream> stream;  // Null: Tick dials the address when its time has come.
    LeaderLink link;
  };

  Hello HelloLocked() const;
  void Dial(Peer& peer, TimeUs now);
  Peer* PeerOf(const RouteStream* stream);
  // Logs a term that is kNotCredible.
  TermVerdict HearTerm(TermId said);
  void OnMessage(RouteStream* stream, wire::RouteDown& message);
  void OnHello(RouteStream* stream, const Hello& hello);
  // Handles the messages that only the leader may send.
  void OnLeader(RouteStream* stream, RouteDownMessage message);
  void OnDone(RouteStream* stream, const grpc::Status& status);
  void OnReleased();
  // The id of the leader's stream if it is `stream`, else 0.
  StreamId LeaderId(const RouteStream* stream);
  void LoseLeader(const RouteStream* stream);

  const GrpcSchedulerLinkOptions options_;
  const Clock* const clock_;
  const std::string process_id_;
  SchedulerEvents* events_ = nullptr;

  // Guards the members below. Never held while events_ or gRPC is called, because both may call
  // this object.
  std::mutex mutex_;
  std::condition_variable gone_;
  std::deque<Peer> peers_;
  int streams_ = 0;  // Streams that may still refer to a channel.
  bool stopping_ = false;
  KnownTerm term_;
  std::shared_ptr<RouteStream> leader_;
  StreamId leader_id_;
  uint64_t last_stream_ = 0;
  SchedulerFacts facts_;
  TimeUs last_tick_us_ = 0;
  TimeUs next_beat_us_ = 0;
};

Hello GrpcSchedulerLink::Impl::HelloLocked() const {
  Hello hello;
  hello.process_id = process_id_;
  hello.role = Role::kRouter;
  hello.build = BuildVersion();
  hello.term_seen = term_.term();
  hello.config_digest = options_.config_digest;
  return hello;
}

GrpcSchedulerLink::Impl::Peer* GrpcSchedulerLink::Impl::PeerOf(const RouteStream* stream) {
  const auto it =
      std::ranges::find_if(peers_, [&](const Peer& peer) { return peer.stream.get() == stream; });
  return it == peers_.end() ? nullptr : &*it;
}

// `peer` needs no lock here: peers_ does not change after construction, and only Tick's thread
// dials.
void GrpcSchedulerLink::Impl::Dial(Peer& peer, TimeUs now) {
  RouteStream::Handler handler;
  handler.message = [this](RouteStream* stream, wire::RouteDown& message) {
    OnMessage(stream, message);
  };
  handler.writable = [this](RouteStream* stream) {
    const StreamId id = LeaderId(stream);
    if (id.value != 0) events_->OnWritable(id);
  };
  handler.done = [this](RouteStream* stream, const grpc::Status& status) {
    OnDone(stream, status);
  };
  std::shared_ptr<RouteStream> stream;
  wire::RouteUp hello;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    ++streams_;
    handler.channel_user = std::shared_ptr<void>(nullptr, [this](void*) { OnReleased(); });
    stream = RouteStream::Make(options_.outbox_bytes_max, std::move(handler));
    ToWire(HelloLocked(), &hello);
    peer.stream = stream;
    peer.link.Dialled(now);
  }
  stream->Begin(peer.stub.get(), std::move(hello));
}

void GrpcSchedulerLink::Impl::OnDone(RouteStream* stream, const grpc::Status& status) {
  LoseLeader(stream);
  std::lock_guard lock(mutex_);
  Peer* peer = PeerOf(stream);
  // Logs one line when the stream is lost, not one for each failed dial.
  if (!peer->link.failing() && !stopping_) {
    LogWarn("scheduler {}: no stream ({}); dialling again", peer->address,
            status.error_message().empty() ? "it ended" : status.error_message());
  }
  peer->link.Ended(clock_->Now());
  peer->stream = nullptr;  // gRPC's callback still holds it.
}

void GrpcSchedulerLink::Impl::OnReleased() {
  std::lock_guard lock(mutex_);
  --streams_;
  gone_.notify_all();
}

StreamId GrpcSchedulerLink::Impl::LeaderId(const RouteStream* stream) {
  std::lock_guard lock(mutex_);
  return leader_.get() == stream ? leader_id_ : StreamId{};
}

void GrpcSchedulerLink::Impl::LoseLeader(const RouteStream* stream) {
  StreamId id;
  {
    std::lock_guard lock(mutex_);
    if (leader_.get() != stream) return;
    leader_ = nullptr;
    id = std::exchange(leader_id_, StreamId{});
  }
  events_->OnDown(id);
}

void GrpcSchedulerLink::Impl::OnHello(RouteStream* stream, const Hello& hello) {
  if (const absl::Status status = CheckSchedulerHello(hello); !status.ok()) {
    LogError("{}", Message(status));
    return stream->Cancel();
  }
  const SchedulerFacts& facts = *hello.scheduler;
  const TermVerdict verdict = facts.leader ? HearTerm(facts.term) : TermVerdict::kStale;
  if (verdict == TermVerdict::kNotCredible) return stream->Cancel();
  StreamId up;
  StreamId same;
  {
    std::lock_guard lock(mutex_);
    Peer* peer = PeerOf(stream);
    // Another stream may have brought a higher term since HearTerm.
    const bool leads = verdict == TermVerdict::kObeyed && facts.term == term_.term();
    peer->link.HeardHello(leads, clock_->Now());
    if (leads) {
      if (leader_.get() == stream && facts.term == facts_.term) {
        same = leader_id_;
      } else {
        leader_ = peer->stream;
        leader_id_ = up = StreamId{++last_stream_};
      }
      facts_ = facts;
    }
  }
  if (up.value != 0) {
    LogInfo("scheduler of term {} leads: model {}, {} groups", facts.term.value,
            facts.cluster.model.empty() ? "not known yet" : facts.cluster.model,
            facts.cluster.groups);
    events_->OnUp(up, facts, CommonProtocol(hello));
  } else if (same.value != 0) {
    events_->OnFacts(same, facts);
  } else {
    LoseLeader(stream);  // This scheduler no longer leads.
  }
}

TermVerdict GrpcSchedulerLink::Impl::HearTerm(TermId said) {
  std::lock_guard lock(mutex_);
  const TermVerdict verdict = term_.Hear(said);
  if (verdict == TermVerdict::kNotCredible) {
    LogError(
        "a scheduler tells term {}, more than {} above the highest one known here, {}; it is not "
        "obeyed",
        said.value, kTermLeadMax, term_.term().value);
  }
  return verdict;
}

void GrpcSchedulerLink::Impl::OnMessage(RouteStream* stream, wire::RouteDown& from) {
  absl::StatusOr<RouteDownMessage> message = FromWire(std::move(from));
  if (!message.ok()) {
    LogError("a message of a scheduler is refused: {}; the stream starts again",
             Message(message.status()));
    return stream->Cancel();
  }
  const auto* beat = std::get_if<Heartbeat>(&*message);
  if (beat != nullptr && HearTerm(beat->term) == TermVerdict::kNotCredible) return stream->Cancel();
  {
    std::lock_guard lock(mutex_);
    PeerOf(stream)->link.Heard(beat != nullptr || std::holds_alternative<ClusterStats>(*message),
                               clock_->Now());
  }
  if (const auto* hello = std::get_if<Hello>(&*message)) return OnHello(stream, *hello);
  if (beat == nullptr) OnLeader(stream, *std::move(message));
}

void GrpcSchedulerLink::Impl::OnLeader(RouteStream* stream, RouteDownMessage message) {
  const StreamId id = LeaderId(stream);
  if (id.value == 0) return;  // A standby or a former leader is not obeyed.
  if (auto* frames = std::get_if<Frames>(&message)) {
    {
      std::lock_guard lock(mutex_);
      if (frames->term < term_.term()) return;
    }
    return events_->OnFrames(id, frames->frames);
  }
  if (auto* accepted = std::get_if<Accepted>(&message)) {
    return events_->OnAccepted(std::move(*accepted));
  }
  if (const auto* refused = std::get_if<Refused>(&message)) return events_->OnRefused(*refused);
  if (const auto* stats = std::get_if<ClusterStats>(&message)) return events_->OnStats(*stats);
  if (const auto* explained = std::get_if<Explained>(&message)) {
    return events_->OnExplained(*explained);
  }
  if (std::holds_alternative<Resign>(message)) LoseLeader(stream);
}

void GrpcSchedulerLink::Impl::Tick() {
  const TimeUs now = clock_->Now();
  std::vector<Peer*> dial;
  std::vector<std::shared_ptr<RouteStream>> silent;
  std::vector<std::shared_ptr<RouteStream>> beat;
  wire::RouteUp heartbeat;
  {
    std::lock_guard lock(mutex_);
    // A process that did not run heard no heartbeats. A late tick therefore moves all limits by the
    // delay, or the router would drop every scheduler after a pause of its own.
    const int64_t late =
        last_tick_us_ == 0 ? 0 : std::max<int64_t>(0, now - last_tick_us_ - options_.heartbeat_us);
    last_tick_us_ = now;
    const bool beat_now = now >= next_beat_us_;
    if (beat_now) next_beat_us_ = now + options_.heartbeat_us;
    for (Peer& peer : peers_) {
      peer.link.Excuse(late);
      if (peer.stream == nullptr) {
        if (now >= peer.link.next_dial_us()) dial.push_back(&peer);
        continue;
      }
      if (peer.link.Silent(now)) silent.push_back(peer.stream);
      if (beat_now && peer.link.greeted()) beat.push_back(peer.stream);
    }
    ToWire(
        Heartbeat{.term = term_.term(), .hears_leader = leader_ != nullptr, .phase = Phase::kIdle},
        &heartbeat);
  }
  for (Peer* peer : dial) Dial(*peer, now);
  for (const auto& stream : silent) stream->Cancel();
  for (const auto& stream : beat) stream->Send(heartbeat, /*bounded=*/true);
}

void GrpcSchedulerLink::Impl::Stop() {
  std::vector<std::shared_ptr<RouteStream>> streams;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const Peer& peer : peers_) {
      if (peer.stream) streams.push_back(peer.stream);
    }
  }
  for (const auto& stream : streams) stream->Cancel();
  streams.clear();
  std::unique_lock lock(mutex_);
  gone_.wait(lock, [this] { return streams_ == 0; });
}

GrpcSchedulerLink::GrpcSchedulerLink(const GrpcSchedulerLinkOptions& options, const Clock* clock)
    : impl_(std::make_unique<Impl>(options, clock)) {}
GrpcSchedulerLink::~GrpcSchedulerLink() = default;

void GrpcSchedulerLink::Start(SchedulerEvents* events) { impl_->Start(events); }
void GrpcSchedulerLink::Tick() { impl_->Tick(); }
void GrpcSchedulerLink::Stop() { impl_->Stop(); }

bool GrpcSchedulerLink::SendSubmit(StreamId stream, const Submit& submit) {
  return impl_->Send(stream, RouteUpOf(submit), /*bounded=*/true);
}

void GrpcSchedulerLink::SendSuspend(StreamId stream, const Suspend& suspend) {
  impl_->Send(stream, RouteUpOf(suspend), /*bounded=*/false);
}

void GrpcSchedulerLink::SendClose(StreamId stream, const Close& close) {
  impl_->Send(stream, RouteUpOf(close), /*bounded=*/false);
}

bool GrpcSchedulerLink::SendExplain(StreamId stream, const ExplainAsk& ask) {
  return impl_->Send(stream, RouteUpOf(ask), /*bounded=*/true);
}

void GrpcSchedulerLink::Reset(StreamId stream) { impl_->Reset(stream); }

}  // namespace fathom::router
