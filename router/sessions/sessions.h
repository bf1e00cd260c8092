// router/sessions/sessions.h: all sessions of this router, and the one place that talks to the
// scheduler for them. It submits sessions, finds the session of a frame by its attempt, submits all
// sessions again to a new leader, and keeps sessions that ended or whose client left, for a resume.
//
// Thread: any. One mutex guards the tables, and each session has its own. A session's mutex may be
// taken while the mutex of the tables is held, never in the other order, or two threads can
// deadlock. Neither is held while the link or a sink is called. Tokens pass through no queue:
// OnFrames runs in the link's read callback.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/clock.h"
#include "common/retry_delay.h"
#include "router/sessions/request_log.h"
#include "router/sessions/scheduler_link.h"
#include "router/sessions/session.h"

namespace fathom::router {

struct SessionsOptions {
  SessionOptions session;
  size_t open_max = 8192;  // Client streams at the same time.
  size_t kept_max = 8192;  // Sessions without a client stream that are kept for a resume.
  size_t kept_bytes_max = size_t{256} << 20;
  int64_t keep_us = 60'000'000;
  int64_t first_wait_us = 2'000'000;  // How long a new request waits for a leader.
  int64_t lost_wait_us = 60'000'000;  // How long an accepted session waits for a new leader.
  int64_t keep_alive_us = 1'000'000;
  int64_t slow_reader_us = 60'000'000;
  // The scheduler ends a session at its deadline. If it does not, the router does so after this
  // time more.
  int64_t deadline_grace_us = 1'000'000;
  RequestLogOptions log;
  int64_t explain_wait_us = 1'000'000;  // How long Explain waits for the scheduler.
  size_t explains_max = 256;            // That wait.
};

// Counts for /metrics. Any thread may call the methods.
class SessionObserver {
 public:
  virtual ~SessionObserver() = default;
  // The first tokens of a session came, `since_us` after it was made.
  virtual void FirstToken(int64_t /*since_us*/, int64_t /*tokens*/) {}
  // More tokens of a sequence came, `gap_us` after its previous ones. -1: they are its first ones,
  // and another sequence of the request had tokens before.
  virtual void TokenGap(int64_t /*gap_us*/, int64_t /*tokens*/) {}
  virtual void Ended(const std::string& /*outcome*/) {}  // Session::outcome().
  // The end of an answer's last token is known to router and scheduler. Not called for requests
  // that failed or whose client left.
  virtual void Finished(const FinishedRequest& /*request*/) {}
  virtual void DroppedTokens(int64_t) {}
  virtual void Resubmitted() {}
  virtual void StreamReset() {}
};

// Takes the report of each stream that ended, once. Any thread may call it; it must not block.
class ReportSink {
 public:
  virtual ~ReportSink() = default;
  virtual void Ended(const RequestReport& report) = 0;
};

class Sessions final : public SchedulerEvents {
 public:
  // REQUIRES: all pointers outlive this object. `tokenizer` and `reports` may be null.
  Sessions(const SessionsOptions& options, const Clock* clock, SchedulerLink* link,
           const Tokenizer* tokenizer, SessionObserver* observer, ReportSink* reports = nullptr);

  // Makes a session: of a new request, or one more stream of a session with the same id and
  // request. Nothing is sent before Submit. RESOURCE_EXHAUSTED: too many streams. ALREADY_EXISTS:
  // another request, which runs or can be resumed, has this id or idempotency key. A failed session
  // does not block its id; the request starts again.
  absl::StatusOr<std::shared_ptr<Session>> Create(AdmittedRequest admitted,
                                                  std::shared_ptr<ClientSink> sink);
  // Makes a session that continues one of this or another router. RESOURCE_EXHAUSTED: too many
  // streams.
  absl::StatusOr<std::shared_ptr<Session>> Resume(const SessionKey& key,
                                                  std::vector<int32_t> next_positions,
                                                  std::shared_ptr<ClientSink> sink,
                                                  SpanContext trace = {});
  void Submit(const std::shared_ptr<Session>& session);

  // The next event for the sink to write; see Session::Take.
  std::optional<ClientEvent> Take(const std::shared_ptr<Session>& session);
  void WriteDone(const std::shared_ptr<Session>& session);
  // The client cancelled, or its stream broke.
  void HangUp(const std::shared_ptr<Session>& session);
  // The client's stream has ended and its sink is released. REQUIRES: called exactly once for each
  // session.
  void Gone(const std::shared_ptr<Session>& session);

  // What is known of a request: one that runs here, one of the last that ended here, or one that
  // the scheduler holds for another router. The scheduler is asked for the timings of a request
  // without an end. `done` is called once, by any thread, with no lock held. NOT_FOUND says how
  // many requests are kept.
  using ExplainFn = std::function<void(const absl::StatusOr<RequestReport>&)>;
  void Explain(const SessionKey& key, ExplainFn done);
  // Requests of the tenant: those that run here, the newest first, then those that ended, the last
  // one first; at most `most` of each. If more of them run, any `most` are given. The scheduler is
  // not asked, so those that run have no timings.
  std::vector<RequestReport> Recent(const std::string& tenant, size_t most) const;
  // Answers every Explain that waits; later ones do not wait.
  void EndExplains();
  // A request was refused before it had a session.
  void NoteRefused(const SessionKey& key, const absl::Status& status);

  // Handles keep-alives, time-outs and the expiry of kept sessions. Must be called several times a
  // second.
  void Tick();

  struct View {
    bool up = false;                    // A leader answers.
    TermId term;                        // The term of the last leader.
    std::optional<ClusterFacts> facts;  // The last facts from a leader.
    ClusterStats stats;
    size_t open = 0;
    size_t kept = 0;
    int64_t unable_us = 0;  // How long there has been no leader or no group; 0: there are both.
    uint64_t number = 0;    // Counts views, so that each one gives another retry delay.
  };
  View view() const;

  void OnUp(StreamId stream, const SchedulerFacts& facts, uint32_t protocol) override;
  void OnFacts(StreamId stream, const SchedulerFacts& facts) override;
  void OnDown(StreamId stream) override;
  void OnWritable(StreamId stream) override;
  void OnAccepted(Accepted accepted) override;
  void OnRefused(const Refused& refused) override;
  void OnFrames(StreamId stream, std::span<Frame> frames) override;
  void OnStats(const ClusterStats& stats) override;
  void OnExplained(const Explained& explained) override;

 private:
  using SessionPtr = std::shared_ptr<Session>;
  struct Kept {
    SessionPtr session;
    TimeUs since_us;
    size_t bytes;
  };

  // The sessions that have a certain idempotency key. They all have one request id.
  struct IdempotencyHold {
    std::string request_id;
    int sessions = 0;
  };

  // An Explain that waits for the scheduler.
  struct Ask {
    SessionKey key;
    ExplainFn done;
    TimeUs since_us = 0;
  };

  // The latest resumable session of the key; null: there is none.
  SessionPtr FindResumable(const SessionKey& key) const;
  SessionPtr FindByAttempt(AttemptId attempt) const;
  // Adds an open session to the tables. RESOURCE_EXHAUSTED and ALREADY_EXISTS as in Create; then
  // nothing has changed.
  absl::Status Insert(const SessionPtr& session);
  absl::Status CheckRoomLocked();
  absl::Status CheckIdempotencyLocked(const Session& session) const;
  // A session is in by_key_ while it has a record and is open or kept.
  void IndexLocked(const SessionPtr& session);
  void UnindexLocked(const SessionPtr& session);
  void NoteAbleLocked();
  void Pump();
  bool SubmitOne(const SessionPtr& session, AttemptId attempt, StreamId stream);
  void Forget(AttemptId attempt);
  void Wake(const SessionPtr& session);
  void TellCuts(const SessionPtr& session);
  void ExpireKept(TimeUs now);
  bool TickOne(const SessionPtr& session, bool up, TimeUs now, TimeUs down_since);
  // ---- sessions_explain.cc
  std::optional<RequestReport> Known(const SessionKey& key, TimeUs now);
  void NoteGone(const SessionPtr& session, TimeUs now);
  // The scheduler's end came; the client may have left before.
  void NoteFinished(const SessionPtr& session, TimeUs now);
  // `explained`: null: the scheduler did not answer.
  void Answer(const Ask& ask, const Explained* explained);
  // Answers the asks that wait for longer than `wait_us`.
  void ExpireAsks(TimeUs now, int64_t wait_us);

  const SessionsOptions options_;
  const Clock* const clock_;
  SchedulerLink* const link_;
  const Tokenizer* const tokenizer_;
  SessionObserver* const observer_;
  ReportSink* const reports_;

  mutable std::mutex mutex_;  // Guards all below.
  StreamId stream_;
  bool up_ = false;
  TimeUs down_since_us_;
  bool able_ = false;  // There are a leader and a group.
  TimeUs unable_since_us_;
  mutable uint64_t views_ = 0;
  RetryLine open_line_;
  TermId term_;
  std::optional<ClusterFacts> facts_;
  ClusterStats stats_;
  uint64_t next_attempt_ = 1;
  absl::flat_hash_set<SessionPtr> open_;                   // Sessions that have a client stream.
  absl::flat_hash_map<AttemptId, SessionPtr> by_attempt_;  // Sessions that wait for the scheduler.
  // Open and kept sessions that have a record; the latest of a key is the last one. A resume
  // without its record is not here, because no other session can continue it.
  absl::flat_hash_map<SessionKey, std::vector<SessionPtr>> by_key_;
  absl::flat_hash_map<SessionKey, IdempotencyHold> idempotency_;  // By (tenant, idempotency key).
  std::deque<SessionPtr> waiting_;  // Sessions to submit, in this order.
  bool room_ = true;                // The link's outbox has room.
  // Counts OnWritable. If it changed while SendSubmit ran, `room_` stays true; otherwise the call
  // would be lost and no session would be submitted again.
  uint64_t room_count_ = 0;
  std::deque<Kept> kept_;  // The oldest first.
  size_t kept_bytes_ = 0;
  RequestLog log_;
  std::map<uint64_t, Ask> asks_;
  uint64_t next_ask_ = 1;
  uint32_t protocol_ = 0;  // That the leader and this router speak.
  bool explains_ended_ = false;
};

}  // namespace fathom::router
