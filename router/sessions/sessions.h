// router/sessions/sessions.h: all client streams of this router, and the one place that talks to
// the scheduler for them. It submits, matches frames by attempt, submits everything again when a
// leader is there again, and keeps what ended or was left for a resume.
//
// Thread: any. Tables are guarded by one mutex, each session by its own, which may be taken while
// the tables' is held and never the other way round. Neither is held while the link or a sink is
// called. Tokens take no hop: OnFrames runs in the link's read callback.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/clock.h"
#include "common/retry_delay.h"
#include "router/sessions/scheduler_link.h"
#include "router/sessions/session.h"

namespace fathom::router {

struct SessionsOptions {
  SessionOptions session;
  size_t open_max = 8192;  // Client streams at once.
  size_t kept_max = 8192;  // For a resume, after the stream.
  size_t kept_bytes_max = size_t{256} << 20;
  int64_t keep_us = 60'000'000;
  int64_t first_wait_us = 2'000'000;  // A new request waits so long for a scheduler.
  int64_t lost_wait_us = 60'000'000;  // An accepted one.
  int64_t keep_alive_us = 1'000'000;
  int64_t slow_reader_us = 60'000'000;
  int64_t deadline_grace_us =
      1'000'000;  // The scheduler ends it at the deadline; then the router does.
};

// What /metrics counts. Methods may be called from any thread.
class SessionObserver {
 public:
  virtual ~SessionObserver() = default;
  // A session's first tokens came, `since_us` after it was made.
  virtual void FirstToken(int64_t /*since_us*/, int64_t /*tokens*/) {}
  // More tokens came, `gap_us` after those before.
  virtual void TokenGap(int64_t /*gap_us*/, int64_t /*tokens*/) {}
  virtual void Ended(const std::string& /*outcome*/) {}  // Session::outcome().
  virtual void DroppedTokens(int64_t) {}
  virtual void Resubmitted() {}
  virtual void StreamReset() {}
};

class Sessions final : public SchedulerEvents {
 public:
  // All pointers outlive this; `tokenizer` may be null.
  Sessions(const SessionsOptions& options, const Clock* clock, SchedulerLink* link,
           const Tokenizer* tokenizer, SessionObserver* observer);

  // A new session, or one more stream of a session of the same id and request. RESOURCE_EXHAUSTED:
  // too many streams; ALREADY_EXISTS: the id or idempotency key is that of another request that
  // goes on or can be gone on with. What failed refuses nobody: it is tried again from the start.
  // Nothing is sent before Submit.
  absl::StatusOr<std::shared_ptr<Session>> Create(AdmittedRequest admitted,
                                                  std::shared_ptr<ClientSink> sink);
  // Goes on with a session of this or another router.
  absl::StatusOr<std::shared_ptr<Session>> Resume(const SessionKey& key,
                                                  std::vector<int32_t> next_positions,
                                                  std::shared_ptr<ClientSink> sink);
  void Submit(const std::shared_ptr<Session>& session);

  // The next event for the sink to write; see Session::Take.
  std::optional<ClientEvent> Take(const std::shared_ptr<Session>& session);
  void WriteDone(const std::shared_ptr<Session>& session);
  // The client cancelled, or its stream broke.
  void HangUp(const std::shared_ptr<Session>& session);
  // The client's stream is over in every way; the sink is forgotten. Call exactly once for each
  // session.
  void Gone(const std::shared_ptr<Session>& session);

  // Keep-alives, time-outs, expiry. Call some times a second.
  void Tick();

  struct View {
    bool up = false;
    TermId term;                        // Of the last leader.
    std::optional<ClusterFacts> facts;  // The last that were heard.
    ClusterStats stats;
    size_t open = 0;
    size_t kept = 0;
    int64_t unable_us = 0;  // For how long there has been no leader or no group; 0: there are.
    uint64_t number = 0;    // Of this view; makes retry delays differ.
  };
  View view() const;

  void OnUp(StreamId stream, const SchedulerFacts& facts) override;
  void OnFacts(StreamId stream, const SchedulerFacts& facts) override;
  void OnDown(StreamId stream) override;
  void OnWritable(StreamId stream) override;
  void OnAccepted(Accepted accepted) override;
  void OnRefused(const Refused& refused) override;
  void OnFrames(StreamId stream, std::span<Frame> frames) override;
  void OnStats(const ClusterStats& stats) override;

 private:
  using SessionPtr = std::shared_ptr<Session>;
  struct Kept {
    SessionPtr session;
    TimeUs since_us;
    size_t bytes;
  };

  // Sessions that hold an idempotency key, all of one request id.
  struct IdempotencyHold {
    std::string request_id;
    int sessions = 0;
  };

  // The latest session of the key that can be gone on with; null: there is none.
  SessionPtr FindResumable(const SessionKey& key) const;
  SessionPtr FindByAttempt(AttemptId attempt) const;
  // The session is open now, and can be found if it has a record. RESOURCE_EXHAUSTED or
  // ALREADY_EXISTS as Create; nothing has changed then.
  absl::Status Insert(const SessionPtr& session);
  absl::Status CheckRoomLocked();
  absl::Status CheckIdempotencyLocked(const Session& session) const;
  // Once each while it has a record and is open or kept.
  void IndexLocked(const SessionPtr& session);
  void UnindexLocked(const SessionPtr& session);
  void NoteAbleLocked();
  void Pump();
  bool SubmitOne(const SessionPtr& session, AttemptId attempt, StreamId stream);
  void Forget(AttemptId attempt);
  void Wake(const SessionPtr& session);
  void TellCut(const SessionPtr& session, const Session::FrameEffects::Cut& cut);
  void ExpireKept(TimeUs now);
  bool TickOne(const SessionPtr& session, bool up, TimeUs now, TimeUs down_since);

  const SessionsOptions options_;
  const Clock* const clock_;
  SchedulerLink* const link_;
  const Tokenizer* const tokenizer_;
  SessionObserver* const observer_;

  mutable std::mutex mutex_;  // Guards all below.
  StreamId stream_;
  bool up_ = false;
  TimeUs down_since_us_;
  bool able_ = false;  // A leader and a group are there.
  TimeUs unable_since_us_;
  mutable uint64_t views_ = 0;
  RetryLine open_line_;
  TermId term_;
  std::optional<ClusterFacts> facts_;
  ClusterStats stats_;
  uint64_t next_attempt_ = 1;
  absl::flat_hash_set<SessionPtr> open_;                   // Have a client stream.
  absl::flat_hash_map<AttemptId, SessionPtr> by_attempt_;  // Expect something from upstream.
  // Open or kept, with a record; the latest is the last one. A resume that only knows its key is
  // not here: nobody else can go on with it.
  absl::flat_hash_map<SessionKey, std::vector<SessionPtr>> by_key_;
  absl::flat_hash_map<SessionKey, IdempotencyHold> idempotency_;  // By (tenant, idempotency key).
  std::deque<SessionPtr> waiting_;                                // To be submitted, in order.
  bool room_ = true;                                              // In the link's outbox.
  // OnWritable calls, so that one between a refusal and its note is not lost.
  uint64_t room_count_ = 0;
  std::deque<Kept> kept_;  // By time.
  size_t kept_bytes_ = 0;
};

}  // namespace fathom::router
