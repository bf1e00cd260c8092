#include "router/sessions/sessions.h"

#include <algorithm>
#include <functional>

#include "common/log.h"
#include "common/reason.h"

namespace fathom::router {
namespace {

absl::Status NoScheduler(int64_t waited_us, const std::string& request_id) {
  return WithReason(
      Unavailable(
          "no scheduler leads now (waited {} ms); try again, or see whether the process that "
          "--scheduler names runs",
          waited_us / 1000),
      Reason::kNoScheduler, "", RetryWhileAwayMs(waited_us, std::hash<std::string>{}(request_id)));
}

}  // namespace

Sessions::Sessions(const SessionsOptions& options, const Clock* clock, SchedulerLink* link,
                   const Tokenizer* tokenizer, SessionObserver* observer, ReportSink* reports)
    : options_(options),
      clock_(clock),
      link_(link),
      tokenizer_(tokenizer),
      observer_(observer),
      reports_(reports),
      down_since_us_(clock->Now()),
      unable_since_us_(down_since_us_),
      log_(options.log) {}

// ---- Making sessions ----

absl::Status Sessions::CheckRoomLocked() {
  if (open_.size() < options_.open_max) return absl::OkStatus();
  return WithReason(
      Exhausted("{} streams are open, which is this router's limit; try again, or add a router",
                open_.size()),
      Reason::kTooManyStreams, "", open_line_.OnRefused(clock_->Now()));
}

absl::Status Sessions::CheckIdempotencyLocked(const Session& session) const {
  if (session.idempotency_key().empty()) return absl::OkStatus();
  const auto it = idempotency_.find(SessionKey{session.key().tenant, session.idempotency_key()});
  if (it == idempotency_.end() || it->second.request_id == session.key().request_id)
    return absl::OkStatus();
  return WithReason(
      AlreadyExists(
          "idempotency_key was used with another request body within the last minute; repeat "
          "the same body, or use a new key"),
      Reason::kIdempotencyKeyReused, "idempotency_key");
}

Sessions::SessionPtr Sessions::FindResumable(const SessionKey& key) const {
  std::vector<SessionPtr> found;
  {
    std::lock_guard lock(mutex_);
    const auto it = by_key_.find(key);
    if (it != by_key_.end()) found = it->second;
  }
  const auto latest = std::find_if(found.rbegin(), found.rend(),
                                   [](const SessionPtr& session) { return session->resumable(); });
  return latest == found.rend() ? nullptr : *latest;
}

void Sessions::IndexLocked(const SessionPtr& session) {
  std::vector<SessionPtr>& of_key = by_key_[session->key()];
  if (std::ranges::find(of_key, session) != of_key.end()) return;
  of_key.push_back(session);
  if (session->idempotency_key().empty()) return;
  IdempotencyHold& hold =
      idempotency_[SessionKey{session->key().tenant, session->idempotency_key()}];
  hold.request_id = session->key().request_id;
  ++hold.sessions;
}

void Sessions::UnindexLocked(const SessionPtr& session) {
  const auto it = by_key_.find(session->key());
  if (it == by_key_.end() || std::erase(it->second, session) == 0) return;
  if (it->second.empty()) by_key_.erase(it);
  if (session->idempotency_key().empty()) return;
  const auto hold =
      idempotency_.find(SessionKey{session->key().tenant, session->idempotency_key()});
  if (--hold->second.sessions == 0) idempotency_.erase(hold);
}

absl::Status Sessions::Insert(const SessionPtr& session) {
  const bool has_record = session->has_record();
  std::lock_guard lock(mutex_);
  FATHOM_RETURN_IF_ERROR(CheckRoomLocked());
  FATHOM_RETURN_IF_ERROR(CheckIdempotencyLocked(*session));
  open_.insert(session);
  if (has_record) IndexLocked(session);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Session>> Sessions::Create(AdmittedRequest admitted,
                                                          std::shared_ptr<ClientSink> sink) {
  std::optional<Session::Snapshot> known;
  if (const SessionPtr other = FindResumable(admitted.record.key)) {
    if (!other->SameRequest(admitted)) {
      return WithReason(
          AlreadyExists("request_id {} is that of another request; leave the field out to have one "
                        "drawn, or use Resume to go on with that one",
                        admitted.record.key.request_id),
          Reason::kRequestIdInUse, "request_id");
    }
    known = other->snapshot();
    admitted.record = known->admitted.record;
  }
  auto session = std::make_shared<Session>(options_.session, std::move(admitted), std::move(sink),
                                           tokenizer_, std::vector<int32_t>{}, clock_->Now());
  if (known) session->Adopt(*std::move(known));
  FATHOM_RETURN_IF_ERROR(Insert(session));
  return session;
}

absl::StatusOr<std::shared_ptr<Session>> Sessions::Resume(const SessionKey& key,
                                                          std::vector<int32_t> next_positions,
                                                          std::shared_ptr<ClientSink> sink,
                                                          SpanContext trace) {
  const TimeUs now = clock_->Now();
  SessionPtr session;
  if (const SessionPtr other = FindResumable(key)) {
    Session::Snapshot known = other->snapshot();
    FATHOM_RETURN_IF_ERROR(CheckNextPositions(known.admitted.record, next_positions));
    known.admitted.trace = std::move(trace);
    session = std::make_shared<Session>(options_.session, known.admitted, std::move(sink),
                                        tokenizer_, std::move(next_positions), now);
    session->Adopt(std::move(known));
  } else {
    session = std::make_shared<Session>(options_.session, key, std::move(sink), tokenizer_,
                                        std::move(next_positions), now, std::move(trace));
  }
  FATHOM_RETURN_IF_ERROR(Insert(session));
  return session;
}

void Sessions::Submit(const SessionPtr& session) {
  {
    std::lock_guard lock(mutex_);
    session->Begin();
    if (!session->over()) waiting_.push_back(session);
  }
  if (session->over()) return Wake(session);  // It continues a session that has finished.
  Pump();
}

// ---- Submitting ----

// Submits waiting sessions while there are a leader and room in the link.
void Sessions::Pump() {
  while (true) {
    SessionPtr session;
    AttemptId attempt;
    StreamId stream;
    {
      std::lock_guard lock(mutex_);
      if (!up_ || !room_ || waiting_.empty()) return;
      session = std::move(waiting_.front());
      waiting_.pop_front();
      attempt = AttemptId{next_attempt_++};
      stream = stream_;
      by_attempt_[attempt] = session;
    }
    if (!SubmitOne(session, attempt, stream)) return;
  }
}

// False: the link has no room now, so the session waits again.
bool Sessions::SubmitOne(const SessionPtr& session, AttemptId attempt, StreamId stream) {
  uint64_t room_count = 0;
  uint32_t protocol = 0;
  {
    std::lock_guard lock(mutex_);
    room_count = room_count_;
    protocol = protocol_;
  }
  auto submit = session->BeginSubmit(stream, attempt, clock_->Now());
  if (!submit) {
    Forget(attempt);
    return true;
  }
  if (protocol < kProtocol2) {
    submit->traceparent.clear();
    // Such a scheduler knows no priorities and has no prefix cache.
    if (submit->record) submit->record->priority = 0;
    if (submit->record) submit->record->cache = {};
    // It would refuse the record, and without the grammar the output would be another one.
    if (submit->record && submit->record->grammar) {
      static_cast<void>(session->EndSubmit(attempt));
      Forget(attempt);
      session->Fail(WithReason(
          Unimplemented("the scheduler is of an older build, which knows no guided output; run one "
                        "version, or leave the grammar out"),
          Reason::kNoGrammarEngine));
      Wake(session);
      return true;
    }
  }
  const bool sent = link_->SendSubmit(stream, *submit);
  if (!session->EndSubmit(attempt)) {  // The client left meanwhile.
    if (sent) link_->SendSuspend(stream, {attempt, session->key()});
    Forget(attempt);
    return true;
  }
  if (sent) {
    if (submit->replay) observer_->Resubmitted();
    return true;
  }
  std::lock_guard lock(mutex_);
  by_attempt_.erase(attempt);
  if (stream != stream_) return true;  // OnUp has added the session to waiting_ again.
  waiting_.push_front(session);
  if (up_ && room_count == room_count_) room_ = false;
  return up_ && room_;
}

void Sessions::Forget(AttemptId attempt) {
  std::lock_guard lock(mutex_);
  by_attempt_.erase(attempt);
}

// ---- From the scheduler ----

void Sessions::OnUp(StreamId stream, const SchedulerFacts& facts, uint32_t protocol) {
  {
    std::lock_guard lock(mutex_);
    if (stream <= stream_) return;
    stream_ = stream;
    up_ = true;
    room_ = true;
    term_ = facts.term;
    facts_ = facts.cluster;
    protocol_ = protocol;
    NoteAbleLocked();
    by_attempt_.clear();
    waiting_.clear();
    for (const SessionPtr& session : open_) {
      if (session->begun() && !session->over()) waiting_.push_back(session);
    }
    std::ranges::stable_sort(waiting_, {},
                             [](const SessionPtr& session) { return session->created_us(); });
  }
  Pump();
}

void Sessions::OnFacts(StreamId stream, const SchedulerFacts& facts) {
  std::lock_guard lock(mutex_);
  if (stream != stream_) return;
  term_ = facts.term;
  facts_ = facts.cluster;
  NoteAbleLocked();
}

void Sessions::OnDown(StreamId stream) {
  const TimeUs now = clock_->Now();
  {
    std::lock_guard lock(mutex_);
    if (stream != stream_ || !up_) return;
    up_ = false;
    down_since_us_ = now;
    stats_ = {};
    by_attempt_.clear();
    if (facts_) facts_->groups = 0;
    NoteAbleLocked();
  }
  ExpireAsks(now, 0);
}

void Sessions::NoteAbleLocked() {
  const bool able = up_ && facts_ && facts_->groups > 0;
  if (able_ && !able) unable_since_us_ = clock_->Now();
  able_ = able;
}

void Sessions::OnWritable(StreamId stream) {
  {
    std::lock_guard lock(mutex_);
    if (stream != stream_) return;
    room_ = true;
    ++room_count_;
  }
  Pump();
}

Sessions::SessionPtr Sessions::FindByAttempt(AttemptId attempt) const {
  std::lock_guard lock(mutex_);
  const auto it = by_attempt_.find(attempt);
  return it == by_attempt_.end() ? nullptr : it->second;
}

void Sessions::OnAccepted(Accepted accepted) {
  SessionPtr session;
  std::string fingerprint;
  {
    std::lock_guard lock(mutex_);
    const auto it = by_attempt_.find(accepted.attempt);
    if (it == by_attempt_.end()) return;
    session = it->second;
    if (facts_) fingerprint = facts_->fingerprint;
  }
  const absl::Status status = session->OnAccepted(std::move(accepted), fingerprint, clock_->Now());
  if (!status.ok()) LogError("{}", ToString(status));
  if (status.ok() && session->has_record()) {  // The record of a resume came with Accepted.
    std::lock_guard lock(mutex_);
    if (open_.contains(session)) IndexLocked(session);
  }
  TellCuts(session);
  Wake(session);
}

void Sessions::OnRefused(const Refused& refused) {
  const SessionPtr session = FindByAttempt(refused.attempt);
  if (session == nullptr) return;
  Forget(refused.attempt);
  session->Fail(refused.status);
  Wake(session);
}

void Sessions::OnFrames(StreamId stream, std::span<Frame> frames) {
  std::vector<SessionPtr> sessions(frames.size());
  {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < frames.size(); ++i) {
      const auto it = by_attempt_.find(frames[i].attempt);
      if (it != by_attempt_.end()) sessions[i] = it->second;
    }
  }
  const TimeUs now = clock_->Now();
  for (size_t i = 0; i < frames.size(); ++i) {
    if (sessions[i] == nullptr) continue;  // The attempt is over.
    const Session::FrameEffects effects = sessions[i]->OnFrame(frames[i], now);
    if (!effects.broken.empty()) {
      LogError("scheduler stream {}: {} (request {}); the stream starts again", stream.value,
               effects.broken, sessions[i]->key().request_id);
      observer_->StreamReset();
      link_->Reset(stream);
      return;
    }
    if (effects.dropped_tokens > 0) observer_->DroppedTokens(effects.dropped_tokens);
    if (effects.first_token) {
      observer_->FirstToken(effects.gap_us, effects.new_tokens);
    } else if (effects.new_tokens > 0) {
      observer_->TokenGap(effects.gap_us, effects.new_tokens);
    }
    if (effects.finished) {
      observer_->Finished(*effects.finished);
      NoteFinished(sessions[i], now);
    }
    TellCuts(sessions[i]);  // The answer to the last one brings the scheduler's timings.
    if (effects.over) Forget(frames[i].attempt);
    Wake(sessions[i]);
  }
}

void Sessions::TellCuts(const SessionPtr& session) {
  const std::vector<Session::Cut> cuts = session->TakeCuts();
  if (cuts.empty()) return;
  StreamId stream;
  {
    std::lock_guard lock(mutex_);
    stream = stream_;
  }
  for (const Session::Cut& cut : cuts) {
    link_->SendClose(stream,
                     {.key = session->key(), .sequence = cut.sequence, .length = cut.length});
  }
}

void Sessions::OnStats(const ClusterStats& stats) {
  std::lock_guard lock(mutex_);
  stats_ = stats;
}

// ---- For clients ----

void Sessions::Wake(const SessionPtr& session) {
  // Before Submit there is no sink, because it does not know its session yet.
  if (const auto sink = session->sink()) sink->Wake();
}

std::optional<ClientEvent> Sessions::Take(const SessionPtr& session) {
  std::optional<ClientEvent> event = session->Take(clock_->Now());
  TellCuts(session);
  return event;
}

void Sessions::WriteDone(const SessionPtr& session) { session->WriteDone(clock_->Now()); }

void Sessions::HangUp(const SessionPtr& session) {
  const auto subscription = session->HangUp(Cancelled("the client left"));
  if (subscription) {
    link_->SendSuspend(subscription->stream, {subscription->attempt, session->key()});
    Forget(subscription->attempt);
  }
  Wake(session);
}

void Sessions::Gone(const SessionPtr& session) {
  session->Detach();
  if (const auto subscription = session->HangUp(Cancelled("the client left"))) {
    link_->SendSuspend(subscription->stream, {subscription->attempt, session->key()});
    Forget(subscription->attempt);
  }
  observer_->Ended(session->outcome());
  NoteGone(session, clock_->Now());
  // A session that cannot be resumed is removed at once; otherwise it would block a repetition of
  // its request.
  const bool keep = session->resumable();
  Kept kept{session, clock_->Now(), session->bytes()};
  std::lock_guard lock(mutex_);
  open_.erase(session);
  open_line_.OnFreed(kept.since_us);
  if (!keep) return UnindexLocked(session);
  IndexLocked(session);
  kept_bytes_ += kept.bytes;
  kept_.push_back(std::move(kept));
}

// ---- Time ----

void Sessions::ExpireKept(TimeUs now) {
  std::lock_guard lock(mutex_);
  while (!kept_.empty() &&
         (now - kept_.front().since_us > options_.keep_us || kept_.size() > options_.kept_max ||
          kept_bytes_ > options_.kept_bytes_max)) {
    const Kept oldest = std::move(kept_.front());
    kept_.pop_front();
    kept_bytes_ -= oldest.bytes;
    by_attempt_.erase(oldest.session->attempt());  // The scheduler has not answered a Close.
    UnindexLocked(oldest.session);
  }
}

// True: the session's sink must be woken.
bool Sessions::TickOne(const SessionPtr& session, bool up, TimeUs now, TimeUs down_since) {
  if (!up && !session->over()) {
    const bool accepted = session->accepted();
    const TimeUs since = accepted ? down_since : std::max(down_since, session->created_us());
    if (now - since > (accepted ? options_.lost_wait_us : options_.first_wait_us)) {
      session->Fail(NoScheduler(now - since, session->key().request_id));
      return true;
    }
  }
  if (session->EndAtDeadline(now, options_.deadline_grace_us)) {
    Forget(session->attempt());
    return true;
  }
  if (session->StuckFor(now) > options_.slow_reader_us) {
    HangUp(session);
    if (const auto sink = session->sink()) sink->Break();
    return false;
  }
  return session->KeepAliveDue(now, options_.keep_alive_us);
}

void Sessions::Tick() {
  const TimeUs now = clock_->Now();
  std::vector<SessionPtr> open;
  bool up = false;
  TimeUs down_since = 0;
  {
    std::lock_guard lock(mutex_);
    open.assign(open_.begin(), open_.end());
    up = up_;
    down_since = down_since_us_;
  }
  for (const SessionPtr& session : open) {
    if (TickOne(session, up, now, down_since)) Wake(session);
  }
  ExpireKept(now);
  ExpireAsks(now, options_.explain_wait_us);
}

Sessions::View Sessions::view() const {
  std::lock_guard lock(mutex_);
  return {up_,
          term_,
          facts_,
          stats_,
          open_.size(),
          kept_.size(),
          able_ ? 0 : clock_->Now() - unable_since_us_,
          ++views_};
}

}  // namespace fathom::router
