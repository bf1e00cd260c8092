// router/sessions/session.h: one client stream: the record it grows, what of it the client has, and
// what waits for it. No IO and no clock: Sessions (sessions.h) talks to the scheduler, a ClientSink
// to the client.
//
// Invariants: ids are appended only at index == length; lower ones are dropped and counted. Nothing
// but a status is given out before the scheduler accepted. At most one event is being written at a
// time. What was given out after n ids is text(n), whatever was coalesced. After the last event
// nothing is given out. Thread: any; a mutex of its own, a leaf lock, inside.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cluster/request.h"
#include "common/status.h"
#include "router/api/admission.h"
#include "router/sessions/client_events.h"
#include "router/sessions/scheduler_link.h"
#include "router/sessions/session_state.h"
#include "text/text_stream.h"
#include "text/tokenizer.h"

namespace fathom::router {

struct SessionOptions {
  size_t render_ahead_bytes = 64 << 10;  // Text made before the client took it.
  int32_t prompt_logprobs_per_event = 256;
  int32_t ids_per_event = 4096;
};

class Session {
 public:
  // `next_positions`: what the client has, per sequence (a resume); the end counts as one more.
  // `tokenizer` may be null (then there is no text) and outlives this.
  Session(const SessionOptions& options, AdmittedRequest admitted, std::shared_ptr<ClientSink> sink,
          const Tokenizer* tokenizer, std::vector<int32_t> next_positions, TimeUs now);
  // A resume that knows only the key: the record comes with Accepted.
  Session(const SessionOptions& options, SessionKey key, std::shared_ptr<ClientSink> sink,
          const Tokenizer* tokenizer, std::vector<int32_t> next_positions, TimeUs now);

  const SessionKey& key() const { return key_; }
  const std::string& idempotency_key() const { return idempotency_key_; }
  TimeUs created_us() const { return created_us_; }

  // ---- Towards the client.

  // The next event, everything that waits coalesced; the write slot is taken then. nullopt: nothing
  // waits, the slot is taken, or the stream is over.
  std::optional<ClientEvent> Take(TimeUs now);
  // The write of what Take gave has ended.
  void WriteDone(TimeUs now);

  // The sink knows this session now. Before, nobody submits it or wakes the sink.
  void Begin();
  bool begun() const;
  // The client's stream is gone: its sink is forgotten.
  void Detach();
  // Whom to wake. Null before Begin and after Detach.
  std::shared_ptr<ClientSink> sink() const;

  // ---- Towards the scheduler.

  // What to submit under `attempt`; nullopt when it is over or a newer attempt was begun.
  std::optional<Submit> BeginSubmit(StreamId stream, AttemptId attempt, TimeUs now);
  // The Submit was handed over. False: the client left meanwhile, so that a Suspend must follow.
  [[nodiscard]] bool EndSubmit(AttemptId attempt);

  // INTERNAL when a resume's record cannot be used; the session has failed then.
  absl::Status OnAccepted(Accepted accepted, const std::string& fingerprint, TimeUs now);
  // What the cluster says ends it: a refusal, a failed sequence, waiting in vain.
  void Fail(absl::Status status);

  struct FrameEffects {
    std::string broken;          // Not empty: this frame cannot be; the stream must be reset.
    int64_t dropped_tokens = 0;  // Had them.
    int64_t new_tokens = 0;
    bool first_token = false;
    int64_t gap_us = 0;  // Since the tokens before.
    bool over = false;   // Finished or failed: no more frames are wanted.
    struct Cut {
      int32_t sequence;
      int32_t length;
    };
    std::optional<Cut> close;  // A stop string: Close this upstream.
  };
  FrameEffects OnFrame(Frame& frame, TimeUs now);

  // The client left or is stuck; `status` is for the one that still listens. Whom to tell upstream,
  // if anybody.
  struct Subscription {
    StreamId stream;
    AttemptId attempt;
  };
  std::optional<Subscription> HangUp(absl::Status status);

  // A cut that Take found while it rendered what had waited; at most once.
  std::optional<FrameEffects::Cut> TakeCut();

  // Marks a keep-alive as due after `silence_us` without a write; true: wake the sink.
  bool KeepAliveDue(TimeUs now, int64_t silence_us);
  // For how long the write in flight has made no progress; 0: there is none.
  int64_t StuckFor(TimeUs now) const;
  // Ends it with DEADLINE when its deadline is more than `grace_us` over; true: wake the sink.
  bool EndAtDeadline(TimeUs now, int64_t grace_us);

  bool over() const;  // Finished, failed or left: nothing is expected from upstream.
  // Its record can be gone on with: there is one, none of its sequences failed, and it was accepted
  // or still may be.
  bool resumable() const;
  bool has_record() const;
  bool accepted() const;
  AttemptId attempt() const;
  size_t bytes() const;  // Roughly what its record takes.
  // How it ended, for metrics: a FinishReason's name, a status code's, or SUSPENDED.
  std::string outcome() const;

  // All that a new session of the same key needs to go on: record with ids, log-probabilities of
  // the prompt, text options, the end if it has one.
  struct Snapshot {
    AdmittedRequest admitted;
    Acceptance acceptance;
    std::vector<std::optional<FinishEvent>> finishes;  // Of each sequence, if it has ended.
  };
  Snapshot snapshot() const;
  // Before anything else happens to it. True: it is finished already and needs no Submit.
  bool Adopt(Snapshot snapshot);
  // The same work, so that both may share a record: prompt, parameters, stop strings and, where
  // given, seed and max_tokens.
  bool SameRequest(const AdmittedRequest& other) const;

 private:
  struct SequenceEnd {
    FinishEvent event;
    bool by_scheduler = false;  // It said so itself. Otherwise it is told of a cut by Close.
    bool sent = false;          // To the client.
  };
  struct Sequence {
    std::unique_ptr<TextStream> text;  // Null: no text is wanted, or the end was rendered.
    int32_t rendered = 0;              // Ids that went through `text`.
    int32_t sent = 0;   // Ids given out, with all their text; a resume starts above 0.
    TextDelta pending;  // Text of ids up to `rendered` that was not given out.
    std::optional<SequenceEnd> end;
  };

  // The members below assume the lock.
  void SetUp();
  bool IsSilentEnd(TokenId id) const;
  void Render(int32_t index, TimeUs now);
  void CutAtStop(int32_t index, const StopMatch& stop, TimeUs now);
  void AppendPromptLogprobs(PromptLogprobs& logprobs);
  std::string CheckFrame(const Frame& frame) const;
  void AppendIds(Frame& frame, FrameEffects* effects, TimeUs now);
  void EndSequence(int32_t index, FinishReason reason, const Usage& usage,
                   const SequenceTimings& timings, TimeUs now);
  bool AllFinished() const;
  bool AllSent() const;
  // Of the request's prompt. REQUIRES: it was accepted.
  int32_t CachedTokens() const;
  int32_t ClientHas(int32_t index) const;
  std::optional<ClientEvent> NextEvent(StreamingClient& client, TimeUs now);
  std::optional<ClientEvent> TakePromptLogprobs(StreamingClient& client);
  std::optional<ClientEvent> TakeTokens(int32_t index, TimeUs now);
  std::optional<ClientEvent> TakeFinish(int32_t index);
  StartedEvent Started(const AcceptedRecord& accepted) const;

  const SessionOptions options_;
  const SessionKey key_;
  const Tokenizer* const tokenizer_;
  const TimeUs created_us_;
  std::string idempotency_key_;  // Constant after construction.

  mutable std::mutex mutex_;  // Guards all below.
  std::shared_ptr<ClientSink> sink_;
  Record record_;
  TextOptions text_;
  bool seed_given_ = false;
  bool max_tokens_given_ = false;
  TimeUs deadline_us_ = 0;  // 0: none.
  std::vector<int32_t> next_positions_;
  std::vector<Sequence> sequences_;  // One for each sequence of record_.

  SubmitState submit_state_;
  AttemptId attempt_;  // The latest one; 0: none was begun.
  Acceptance acceptance_;
  ClientState client_state_;
  TimeUs first_token_us_ = 0;
  TimeUs last_token_us_ = 0;
  std::optional<FrameEffects::Cut> cut_;

  // The write slot: Take takes it, WriteDone frees it.
  bool writing_ = false;
  TimeUs last_write_us_;  // When the last write began or ended.
};

}  // namespace fathom::router
