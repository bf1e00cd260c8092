// scheduler/sessions/sessions.h: the sessions of one scheduler core: it takes the routers'
// messages, keeps the records, appends what workers computed, and makes the messages to the
// routers. It decides which sequences are computed; Batching decides when and where. Pure.
// Thread: not thread-safe; owned by the driver thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cluster/request.h"
#include "cluster/route_messages.h"
#include "common/retry_delay.h"
#include "common/status.h"
#include "common/types.h"
#include "scheduler/sessions/session.h"
#include "scheduler/sessions/session_actions.h"
#include "scheduler/sessions/session_table.h"

namespace fathom::scheduler {

// What the sessions ask of the batching core.
class Batching {
 public:
  virtual ~Batching() = default;
  // Whether a request that was never accepted can be accepted: a group has the size for it, the
  // limits have room, and its deadline (0: none) can be met.
  virtual absl::Status CheckNew(const Record& record, int64_t deadline_us) = 0;
  // A request that CheckNew had no error for is accepted.
  virtual void Accepted(const SessionKey& key) = 0;
  // A Submit is refused with this error.
  virtual void CountRefused(const absl::Status& status) = 0;
  // How many of the sequence's first tokens a group would take from its blocks if it were admitted
  // now.
  virtual int32_t CachedTokens(const Sequence& sequence) const = 0;
  // From suspended to waiting.
  virtual void Enqueue(Sequence& sequence) = 0;
  // From waiting or running to suspended: frees its place in the queue, or its slot and its
  // blocks. Does not change any other sequence. `why`: for the sequence's stamps.
  virtual void Withdraw(Sequence& sequence, StayEnd why) = 0;
};

struct SessionOptions {
  int64_t session_memory_bytes_max = 0;
  int64_t record_keep_us = 0;             // After the end or the suspension.
  int64_t router_grace_us = 0;            // The sessions of a lost router run on for so long.
  int32_t sequences_max = kSequencesMax;  // Of one request.
};

struct SessionStats {
  int32_t sessions = 0;  // Records held.
  int64_t session_bytes = 0;
  uint64_t suspensions_total = 0;   // Of any cause.
  uint64_t kind_changes_total = 0;  // Answers that another kind of group continued.
  uint64_t finished_total = 0;
  uint64_t failed_total = 0;
  uint64_t refused_total = 0;
};

class Sessions {
 public:
  // REQUIRES: `batching` and `actions` outlive this object. Every call adds what the
  // driver must do to `actions`.
  Sessions(const SessionOptions& options, Batching* batching, SessionActions* actions)
      : options_(options), batching_(*batching), actions_(*actions) {}

  // The time of the calls that follow. REQUIRES: now >= the previous now.
  void SetTime(TimeUs now) { now_ = now; }

  // ---- From routers
  void On(Routed<Submit> event);
  void On(const Routed<Suspend>& event);
  void On(const Routed<Close>& event);
  void RouterLost(PeerId router) { table_.RouterLost(router, now_ + options_.router_grace_us); }

  // ---- From the batching core
  // nullptr: the session is gone.
  Session* Find(uint64_t number) { return table_.Find(number); }
  const Session* Find(const SessionKey& key) const { return table_.Find(key); }
  // A group of this fingerprint and kind computed a token. Ends the sequence at its last token.
  // False: the record did not get the token, because `position` is not the sequence's next one
  // (then nothing changed) or because the sequence has failed (see Continues).
  bool AppendToken(Sequence& sequence, int32_t position, TokenId id, const TokenLogprob* logprob,
                   const std::string& fingerprint, const ComputeKind& kind);
  // Adds the log-probabilities that the record does not have.
  void AppendPromptLogprobs(Sequence& sequence, const PromptLogprobs& logprobs,
                            const std::string& fingerprint, const ComputeKind& kind);
  // Ends every sequence of the request that has not ended: an answer that lacks one sequence is of
  // no use, and the client's stream ends with the error. Does nothing if all have ended.
  void Fail(Sequence& sequence, const absl::Status& error);
  void CountSuspension(Sequence& sequence);
  void AddLog(std::string line);

  // ---- In each step of the core
  // Ends sessions at their deadline, suspends them when the grace of their last router is over, and
  // removes records that were kept for long enough.
  void ExpireTimers();
  // Makes the frames of what subscribers were not sent yet.
  void Deliver();
  // Removes the oldest records that are not live, until the memory is within its limit.
  void EvictOverLimit();

  TimeUs NextTimeUs() const { return table_.NextTimeUs(); }  // INT64_MAX: none.
  SessionStats Stats() const;
  void ForEach(const std::function<void(const Session&)>& visit) const { table_.ForEach(visit); }
  // INTERNAL naming the first broken invariant.
  absl::Status CheckInvariants() const;

 private:
  absl::Status CheckSession(const Session& session) const;
  void Refuse(const Routed<Submit>& event, const absl::Status& status);
  // Checks a request that has no session, and evicts kept records until its record has memory.
  absl::Status CheckNew(const Submit& submit);
  // Takes record and blob out of `submit`. REQUIRES: submit->record.
  Session& Create(Submit* submit);
  // Adds to the session what the submitted record has and the session's record has not.
  void AdoptLonger(Session& session, Record submitted);
  // `prompt_logprobs_known`: how many the router has when it has got Accepted.
  void Accept(Session& session, const Routed<Submit>& event, size_t prompt_logprobs_known);
  void SuspendSession(Session& session);
  // False: the token must not be taken. Either the sequence has failed, because a client has tokens
  // beyond the record and a group of another kind computed these positions again (its tokens may
  // differ from those that the client has, and the client's answer would join two different texts),
  // or it begins with another model than the request's other sequences.
  bool Continues(Sequence& sequence, int32_t position, const std::string& fingerprint,
                 const ComputeKind& kind);
  // Whether the first token of the sequence may be of this kind. No: another sequence of the
  // request has tokens of another model; a sequence that runs waits again, for that model.
  bool BeginsLikeOthers(Sequence& sequence, const std::string& fingerprint,
                        const ComputeKind& kind);
  void NoteFingerprint(Sequence& sequence, int32_t position, const std::string& fingerprint,
                       const ComputeKind& kind);
  // The request has its first token, from `begun`: its other sequences that wait for any group now
  // wait for one of the same kind.
  void QueueOthersAgain(const Sequence& begun);
  void Finish(Sequence& sequence, FinishReason reason);
  void End(Sequence& sequence, FinishedState state);
  // Finishes the sequence if its last id ends it.
  void FinishIfEnded(Sequence& sequence);
  void MarkDirty(Session& session);

  const SessionOptions options_;
  Batching& batching_;
  SessionActions& actions_;
  TimeUs now_ = 0;
  SessionTable table_;
  RetryLine memory_line_;        // Of requests that are refused because memory is full.
  SessionStats counters_;        // Stats() fills in the gauges.
  std::vector<uint64_t> dirty_;  // Sessions with something to deliver.
};

}  // namespace fathom::scheduler
