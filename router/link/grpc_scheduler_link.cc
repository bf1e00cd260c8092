#include "router/link/grpc_scheduler_link.h"

#include <grpcpp/channel.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "cluster.grpc.pb.h"
#include "cluster/channel.h"
#include "cluster/terms.h"
#include "cluster/wire.h"
#include "cluster/wire_ranges.h"
#include "common/log.h"
#include "common/process.h"
#include "router/link/route_stream.h"

namespace fathom::router {
namespace {

namespace wire = cluster::v1;

constexpr uint32_t kProtocol = 1;

SchedulerFacts FactsOf(const wire::SchedulerHello& hello) {
  SchedulerFacts facts;
  facts.term = TermId{hello.term()};
  facts.model = hello.model();
  facts.config_digest = hello.config_digest();
  facts.fingerprint = hello.fingerprint();
  facts.context_tokens = hello.context_tokens();
  facts.block_tokens = hello.block_tokens();
  facts.pool_blocks = hello.pool_blocks();
  facts.groups = hello.groups();
  facts.vocab = hello.vocab();
  facts.device_kind = hello.device_kind();
  facts.dtype = hello.dtype();
  return facts;
}

absl::Status RefusalOf(const wire::Refused& refused) {
  const bool known = refused.code() > 0 && refused.code() <= 16;
  return WithDetail(MakeStatus(known ? static_cast<absl::StatusCode>(refused.code())
                                     : absl::StatusCode::kInternal,
                               refused.message()),
                    {.reason = refused.reason(),
                     .field = refused.field(),
                     .retry_after_ms = refused.retry_after_ms()});
}

absl::StatusOr<AcceptedDown> AcceptedOf(wire::Accepted& message) {
  AcceptedDown accepted;
  accepted.attempt = AttemptId{message.attempt()};
  accepted.request_id = message.request_id();
  accepted.seed = message.seed();
  accepted.cached_tokens = message.cached_tokens();
  accepted.router_blob = std::move(*message.mutable_router_blob());
  if (message.has_record()) {
    FATHOM_ASSIGN_OR_RETURN(accepted.record, FromWire(message.record()));
  }
  return accepted;
}

FrameEnd EndOf(const wire::Finish& finish) {
  FrameEnd end;
  end.reason = FinishReasonFromWire(finish.reason());
  end.usage = {finish.usage().prompt_tokens(), finish.usage().completion_tokens(),
               finish.usage().cached_tokens()};
  end.timings = {finish.timings().queue_us(), finish.timings().prefill_us(),
                 finish.timings().decode_us(), finish.timings().suspensions()};
  return end;
}

absl::StatusOr<FrameDown> FrameOf(wire::Frame& message) {
  FrameDown frame;
  frame.attempt = AttemptId{message.attempt()};
  frame.sequence = message.sequence();
  frame.position = message.position();
  frame.ids.assign(message.ids().begin(), message.ids().end());
  frame.logprobs.reserve(message.logprobs_size());
  for (const auto& logprob : message.logprobs()) {
    FATHOM_ASSIGN_OR_RETURN(frame.logprobs.emplace_back(), FromWire(logprob));
  }
  if (message.has_prompt_logprobs()) {
    FATHOM_ASSIGN_OR_RETURN(frame.prompt_logprobs, FromWire(message.prompt_logprobs()));
  }
  frame.fingerprint = std::move(*message.mutable_fingerprint());
  frame.kind = FromWire(message.kind());
  if (message.has_finish()) frame.end = EndOf(message.finish());
  if (message.has_error()) {
    const int code = message.error().code();
    frame.error = WithDetail(MakeStatus(code > 0 && code <= 16 ? static_cast<absl::StatusCode>(code)
                                                               : absl::StatusCode::kInternal,
                                        message.error().message()),
                             {.reason = message.error().reason(), .field = {}});
  }
  return frame;
}

}  // namespace

class GrpcSchedulerLink::Impl {
 public:
  Impl(const GrpcSchedulerLinkOptions& options, const Clock* clock)
      : options_(options), clock_(clock), process_id_(RandomId()) {
    for (const std::string& address : options.addresses) {
      Peer& peer = peers_.emplace_back();
      peer.address = address;
      peer.stub = wire::Scheduler::NewStub(MakeChannel(address));
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
    std::shared_ptr<RouteStream> stream;  // Null: to be dialled at next_dial_us.
    TimeUs next_dial_us = 0;
    int64_t backoff_us = 0;
    TimeUs heard_us = 0;
    bool greeted = false;  // Its Hello came.
    bool beats = false;    // It sent a heartbeat or Stats: its silence means something.
  };

  wire::RouteUp HelloLocked() const;
  void Dial(Peer& peer, TimeUs now);
  Peer* PeerOf(const RouteStream* stream);
  bool HearTerm(const wire::RouteDown& message);
  void OnMessage(RouteStream* stream, wire::RouteDown& message);
  void OnHello(RouteStream* stream, const wire::Hello& hello);
  void OnFrames(StreamId id, wire::Frames& frames);
  void OnDone(RouteStream* stream, const grpc::Status& status);
  // The id under which `stream` leads; 0: it does not.
  StreamId LeaderId(const RouteStream* stream);
  void LoseLeader(const RouteStream* stream);

  const GrpcSchedulerLinkOptions options_;
  const Clock* const clock_;
  const std::string process_id_;
  SchedulerEvents* events_ = nullptr;

  std::mutex mutex_;  // Guards all below; never held while events_ or a stream's gRPC calls run.
  std::condition_variable gone_;
  std::deque<Peer> peers_;
  int streams_ = 0;  // Whose OnDone did not come yet.
  bool stopping_ = false;
  uint64_t term_ = 0;  // The highest ever seen.
  std::shared_ptr<RouteStream> leader_;
  StreamId leader_id_;
  uint64_t last_stream_ = 0;
  SchedulerFacts facts_;
  TimeUs last_tick_us_ = 0;
  TimeUs next_beat_us_ = 0;
};

wire::RouteUp GrpcSchedulerLink::Impl::HelloLocked() const {
  wire::RouteUp up;
  wire::Hello& hello = *up.mutable_hello();
  hello.set_process_id(process_id_);
  hello.set_role(wire::ROLE_ROUTER);
  hello.set_protocol_min(kProtocol);
  hello.set_protocol_max(kProtocol);
  hello.set_build(BuildVersion());
  hello.set_term_seen(term_);
  hello.set_config_digest(options_.config_digest);
  return up;
}

GrpcSchedulerLink::Impl::Peer* GrpcSchedulerLink::Impl::PeerOf(const RouteStream* stream) {
  const auto it =
      std::ranges::find_if(peers_, [&](const Peer& peer) { return peer.stream.get() == stream; });
  return it == peers_.end() ? nullptr : &*it;
}

// Peers are never added or taken away after construction, and only Tick's thread dials.
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
  const auto stream = RouteStream::Make(options_.outbox_bytes_max, std::move(handler));
  wire::RouteUp hello;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    ++streams_;
    hello = HelloLocked();
    peer.stream = stream;
    peer.heard_us = now;
    peer.greeted = false;
    peer.beats = false;
  }
  stream->Begin(peer.stub.get(), std::move(hello));
}

void GrpcSchedulerLink::Impl::OnDone(RouteStream* stream, const grpc::Status& status) {
  LoseLeader(stream);
  std::lock_guard lock(mutex_);
  Peer* peer = PeerOf(stream);
  if (peer->backoff_us == 0 && !stopping_) {  // Said once, not at each try.
    LogWarn("scheduler {}: no stream ({}); dialling again", peer->address,
            status.error_message().empty() ? "it ended" : status.error_message());
  }
  peer->backoff_us =
      std::clamp(peer->backoff_us * 2, options_.backoff_min_us, options_.backoff_max_us);
  peer->next_dial_us = clock_->Now() + peer->backoff_us;
  peer->stream = nullptr;
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

void GrpcSchedulerLink::Impl::OnHello(RouteStream* stream, const wire::Hello& hello) {
  if (!hello.has_scheduler() || hello.protocol_min() > kProtocol ||
      hello.protocol_max() < kProtocol) {
    LogError(
        "a peer of role {} that speaks protocols {} to {} answered on Route; this router is {} and "
        "speaks {}",
        static_cast<int>(hello.role()), hello.protocol_min(), hello.protocol_max(), BuildVersion(),
        kProtocol);
    return stream->Cancel();
  }
  const SchedulerFacts facts = FactsOf(hello.scheduler());
  StreamId up;
  StreamId same;
  {
    std::lock_guard lock(mutex_);
    Peer* peer = PeerOf(stream);
    peer->greeted = true;
    peer->backoff_us = 0;
    if (hello.scheduler().leader() && facts.term.value >= term_) {
      term_ = facts.term.value;
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
            facts.model.empty() ? "not known yet" : facts.model, facts.groups);
    events_->OnUp(up, facts);
  } else if (same.value != 0) {
    events_->OnFacts(same, facts);
  } else {
    LoseLeader(stream);  // It steps down, or stands by.
  }
}

// False: it tells a term that is not credible.
bool GrpcSchedulerLink::Impl::HearTerm(const wire::RouteDown& message) {
  const bool leads = message.has_hello() && message.hello().scheduler().leader();
  if (!leads && !message.has_heartbeat()) return true;
  const uint64_t said = leads ? message.hello().scheduler().term() : message.heartbeat().term();
  std::lock_guard lock(mutex_);
  if (!IsCredible(TermId{said}, TermId{term_})) {
    LogError(
        "a scheduler tells term {}, more than {} above the highest one known here, {}; it is not "
        "obeyed",
        said, kTermLeadMax, term_);
    return false;
  }
  if (message.has_heartbeat()) term_ = std::max(term_, said);
  return true;
}

void GrpcSchedulerLink::Impl::OnMessage(RouteStream* stream, wire::RouteDown& message) {
  if (const absl::Status status = CheckRanges(message); !status.ok()) {
    LogError("a message of a scheduler is refused: {}; the stream starts again", Message(status));
    return stream->Cancel();
  }
  if (!HearTerm(message)) return stream->Cancel();
  {
    std::lock_guard lock(mutex_);
    Peer* peer = PeerOf(stream);
    peer->heard_us = clock_->Now();
    if (message.has_heartbeat() || message.has_stats()) peer->beats = true;
  }
  if (message.has_hello()) return OnHello(stream, message.hello());
  if (message.has_heartbeat()) return;
  const StreamId id = LeaderId(stream);
  if (id.value == 0) return;  // What a standby or a dead leader says is not obeyed.
  switch (message.message_case()) {
    case wire::RouteDown::kFrames:
      return OnFrames(id, *message.mutable_frames());
    case wire::RouteDown::kAccepted: {
      auto accepted = AcceptedOf(*message.mutable_accepted());
      if (accepted.ok()) return events_->OnAccepted(*std::move(accepted));
      LogError("Accepted: {}", ToString(accepted.status()));
      return stream->Cancel();
    }
    case wire::RouteDown::kRefused:
      return events_->OnRefused(AttemptId{message.refused().attempt()},
                                RefusalOf(message.refused()));
    case wire::RouteDown::kStats: {
      const wire::Stats& stats = message.stats();
      return events_->OnStats({stats.requests_running(), stats.requests_waiting(),
                               stats.blocks_total(), stats.blocks_used(), stats.groups(),
                               stats.last_loss(), stats.losses_alike()});
    }
    case wire::RouteDown::kResign:
      return LoseLeader(stream);
    default:
      return;
  }
}

void GrpcSchedulerLink::Impl::OnFrames(StreamId id, wire::Frames& message) {
  {
    std::lock_guard lock(mutex_);
    if (message.term() < term_) return;
  }
  std::vector<FrameDown> frames;
  frames.reserve(message.frames_size());
  for (wire::Frame& from : *message.mutable_frames()) {
    auto frame = FrameOf(from);
    if (!frame.ok()) {
      LogError("a frame cannot be read: {}; the stream starts again", ToString(frame.status()));
      return Reset(id);
    }
    frames.push_back(*std::move(frame));
  }
  events_->OnFrames(id, frames);
}

void GrpcSchedulerLink::Impl::Tick() {
  const TimeUs now = clock_->Now();
  std::vector<Peer*> dial;
  std::vector<std::shared_ptr<RouteStream>> silent;
  std::vector<std::shared_ptr<RouteStream>> beat;
  wire::RouteUp heartbeat;
  {
    std::lock_guard lock(mutex_);
    // Whoever slept accuses nobody: a tick that comes late moves every limit by the delay.
    const int64_t late =
        last_tick_us_ == 0 ? 0 : std::max<int64_t>(0, now - last_tick_us_ - options_.heartbeat_us);
    last_tick_us_ = now;
    const bool beat_now = now >= next_beat_us_;
    if (beat_now) next_beat_us_ = now + options_.heartbeat_us;
    for (Peer& peer : peers_) {
      peer.heard_us += late;
      if (peer.stream == nullptr) {
        if (now >= peer.next_dial_us) dial.push_back(&peer);
        continue;
      }
      const int64_t limit = !peer.greeted ? options_.hello_us
                            : peer.beats  ? options_.silence_us
                                          : INT64_MAX;
      if (now - peer.heard_us > limit) silent.push_back(peer.stream);
      if (beat_now && peer.greeted) beat.push_back(peer.stream);
    }
    heartbeat.mutable_heartbeat()->set_term(term_);
    heartbeat.mutable_heartbeat()->set_hears_leader(leader_ != nullptr);
    heartbeat.mutable_heartbeat()->set_phase(wire::PHASE_IDLE);
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
  std::unique_lock lock(mutex_);
  gone_.wait(lock, [this] { return streams_ == 0; });
}

GrpcSchedulerLink::GrpcSchedulerLink(const GrpcSchedulerLinkOptions& options, const Clock* clock)
    : impl_(std::make_unique<Impl>(options, clock)) {}
GrpcSchedulerLink::~GrpcSchedulerLink() = default;

void GrpcSchedulerLink::Start(SchedulerEvents* events) { impl_->Start(events); }
void GrpcSchedulerLink::Tick() { impl_->Tick(); }
void GrpcSchedulerLink::Stop() { impl_->Stop(); }

bool GrpcSchedulerLink::Submit(StreamId stream, const SubmitUp& submit) {
  wire::RouteUp up;
  wire::Submit& message = *up.mutable_submit();
  message.set_attempt(submit.attempt.value);
  if (submit.record) {
    ToWire(*submit.record, message.mutable_record());
  } else {
    message.mutable_key()->set_tenant(submit.key.tenant);
    message.mutable_key()->set_request_id(submit.key.request_id);
  }
  message.set_router_blob(submit.router_blob);
  message.mutable_have()->Add(submit.have.begin(), submit.have.end());
  message.set_deadline_ms(submit.deadline_ms);
  message.set_replay(submit.replay);
  message.set_age_ms(submit.age_ms);
  return impl_->Send(stream, std::move(up), /*bounded=*/true);
}

void GrpcSchedulerLink::Suspend(StreamId stream, AttemptId attempt, const SessionKey& key) {
  wire::RouteUp up;
  up.mutable_suspend()->set_attempt(attempt.value);
  up.mutable_suspend()->mutable_key()->set_tenant(key.tenant);
  up.mutable_suspend()->mutable_key()->set_request_id(key.request_id);
  impl_->Send(stream, std::move(up), /*bounded=*/false);
}

void GrpcSchedulerLink::Close(StreamId stream, const SessionKey& key, int32_t sequence,
                              int32_t length, FinishReason reason) {
  wire::RouteUp up;
  wire::Close& close = *up.mutable_close();
  close.mutable_key()->set_tenant(key.tenant);
  close.mutable_key()->set_request_id(key.request_id);
  close.set_sequence(sequence);
  close.set_length(length);
  close.set_reason(static_cast<wire::FinishReason>(FinishReasonToWire(reason)));
  impl_->Send(stream, std::move(up), /*bounded=*/false);
}

void GrpcSchedulerLink::Reset(StreamId stream) { impl_->Reset(stream); }

}  // namespace fathom::router
