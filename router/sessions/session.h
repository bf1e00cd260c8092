// router/sessions/session.h: one client stream: its record, what the client already has of it, and
// the events that wait for the client. No IO and no clock: Sessions (sessions.h) talks to the
// scheduler, and a ClientSink talks to the client.
//
// Invariants: An id is appended only at the position that is next; ids of lower positions are
// dropped and counted. Before the scheduler has accepted the request, the client gets nothing but a
// final status. At most one event is written at a time. After n ids the client has exactly the text
// of n ids, however ids were put together into events. No event follows the last one. Thread: any;
// each session has a mutex, and no other lock is taken while it is held.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cluster/request.h"
#include "cluster/request_timings.h"
#include "common/status.h"
#include "router/api/admission.h"
#include "router/sessions/client_events.h"
#include "router/sessions/request_report.h"
#include "router/sessions/scheduler_link.h"
#include "router/sessions/session_state.h"
#include "text/text_stream.h"
#include "text/tokenizer.h"

namespace fathom::router {

struct SessionOptions {
  // The most text that waits for the client to take it, over all sequences.
  size_t render_ahead_bytes = 64 << 10;
  int32_t prompt_logprobs_per_event = 256;
  int32_t ids_per_event = 4096;
};

// A request that came to its end, for metrics.
struct FinishedRequest {
  RequestTimings timings;    // The scheduler's, of the sequence that ended last.
  int32_t timed_tokens = 0;  // Of that sequence.
  Usage usage;               // Of the request: its prompt once, the tokens of all sequences.
  int32_t max_tokens = 0;
  int64_t whole_us = 0;  // Of this stream: from its session's start to its end, in the router.
};

// INVALID_ARGUMENT: a resume names more sequences than the record has.
absl::Status CheckNextPositions(const Record& record, const std::vector<int32_t>& positions);

// What `record` and `text` say of a StartedEvent.
StartedEvent StartedOf(const Record& record, const TextOptions& text);

class Session {
 public:
  // `next_positions`: for each sequence the first position that the client does not have (in a
  // resume). The end of a sequence counts as one more position. `tokenizer` may be null; then there
  // is no text. REQUIRES: `tokenizer` outlives the session.
  Session(const SessionOptions& options, AdmittedRequest admitted, std::shared_ptr<ClientSink> sink,
          const Tokenizer* tokenizer, std::vector<int32_t> next_positions, TimeUs now);
  // A resume of a session that this router does not have: the record comes with Accepted.
  Session(const SessionOptions& options, SessionKey key, std::shared_ptr<ClientSink> sink,
          const Tokenizer* tokenizer, std::vector<int32_t> next_positions, TimeUs now,
          SpanContext trace);

  const SessionKey& key() const { return key_; }
  const std::string& idempotency_key() const { return idempotency_key_; }
  TimeUs created_us() const { return created_us_; }

  // ---- For the client.

  // The next event, which holds as much as possible of what waits. The caller must write it and
  // call WriteDone. nullopt: nothing waits, an event is being written, or the stream has ended.
  std::optional<ClientEvent> Take(TimeUs now);
  // The write of the event from Take has ended.
  void WriteDone(TimeUs now);

  // Called when the sink knows this session. Before that, the session is not submitted and the sink
  // is not woken.
  void Begin();
  bool begun() const;
  // The client's stream is gone, so the session releases its sink.
  void Detach();
  // The sink to wake. Null before Begin and after Detach.
  std::shared_ptr<ClientSink> sink() const;

  // ---- For the scheduler.

  // The Submit for `attempt`. nullopt: the session is over, or has begun a newer attempt.
  std::optional<Submit> BeginSubmit(StreamId stream, AttemptId attempt, TimeUs now);
  // The link has taken or refused the Submit. False: the client left in the meantime, so the caller
  // must send a Suspend if the link has taken the Submit.
  [[nodiscard]] bool EndSubmit(AttemptId attempt);

  // INTERNAL: the record of a resume cannot be used; INVALID_ARGUMENT: it has fewer sequences than
  // the client names. Then the session has failed.
  absl::Status OnAccepted(Accepted accepted, const std::string& fingerprint, TimeUs now);
  // Ends the session with an error: the scheduler refused it, or none came in time.
  void Fail(absl::Status status);

  struct FrameEffects {
    std::string broken;          // Not empty: why the frame is invalid; the stream must be reset.
    int64_t dropped_tokens = 0;  // Tokens that the record already had.
    int64_t new_tokens = 0;
    bool first_token = false;  // Of the session.
    // The time since the previous tokens of the sequence; with `first_token` since the session was
    // made. -1: they are the sequence's first ones, and another sequence had tokens before.
    int64_t gap_us = 0;
    bool over = false;  // The scheduler sends nothing more that counts.
    // The scheduler's ends of all sequences came, and their tokens had their ends too.
    std::optional<FinishedRequest> finished;
  };
  FrameEffects OnFrame(Frame& frame, TimeUs now);

  struct Subscription {
    StreamId stream;
    AttemptId attempt;
  };
  // The client left or does not read. The client gets `status` if it still reads. If the result is
  // set, the caller must send a Suspend for it.
  std::optional<Subscription> HangUp(absl::Status status);

  // The router found a stop string, so the sequence ends after `length` tokens.
  struct Cut {
    int32_t sequence;
    int32_t length;
  };
  // The cuts for which the scheduler must get a Close. Each one is returned once after it was
  // found, and again after a new Submit was accepted, because its Close may be lost. To be called
  // after OnAccepted, OnFrame and Take.
  std::vector<Cut> TakeCuts();

  // Notes that a keep-alive is due if nothing was written for `silence_us`. True: wake the sink.
  bool KeepAliveDue(TimeUs now, int64_t silence_us);
  // The age of the write in flight; 0: none is in flight.
  int64_t StuckFor(TimeUs now) const;
  // Ends the session with DEADLINE if its deadline passed at least `grace_us` ago. True: wake the
  // sink.
  bool EndAtDeadline(TimeUs now, int64_t grace_us);

  bool over() const;  // Finished, failed or left: the scheduler sends nothing more for it.
  // Whether another session can continue the record: the session has a record, none of its
  // sequences failed, and it was accepted or still may be.
  bool resumable() const;
  bool has_record() const;
  bool accepted() const;
  AttemptId attempt() const;
  std::vector<TokenId> PromptIds() const;  // Empty: there is no record.
  size_t bytes() const;                    // About the size of the record.
  // How the session ended, for metrics: the name of a FinishReason or of a status code; CANCELLED
  // if its client left; SUSPENDED if the router ended the client's stream before the answer's end.
  std::string outcome() const;
  // What is known of the request until `now`.
  RequestReport Report(TimeUs now) const;
  // Makes the report of a stream that has ended; `complete`: it will not change any more. Called
  // once.
  RequestReport LastReport(TimeUs now, bool* complete);
  // The scheduler's end came after LastReport, whose report was not complete; true only once.
  bool TakeOwedReport();
  // It is one more stream of a request that had ended before; its report is that of the first.
  bool repeats() const;

  // Everything that a new session of the same key needs to continue this one.
  struct Snapshot {
    AdmittedRequest admitted;
    Acceptance acceptance;
    std::vector<std::optional<FinishEvent>> finishes;  // For each sequence; nullopt: not ended.
    TimeUs begun_us = 0;
    int64_t first_token_us = -1;  // As in RequestReport.
  };
  Snapshot snapshot() const;
  // Continues the session of `snapshot`. True: it has finished already and needs no Submit.
  // REQUIRES: called before any other method, on a session made of snapshot.admitted.
  bool Adopt(Snapshot snapshot);
  // Whether the two requests may share one record: prompt, parameters and stop strings are equal,
  // and so are seed and max_tokens where `other` gives them.
  bool SameRequest(const AdmittedRequest& other) const;

 private:
  struct SequenceEnd {
    FinishEvent event;
    bool by_scheduler = false;  // The scheduler sent the end, so it needs no Close.
    bool sent = false;          // The client was given the end.
  };
  struct Sequence {
    std::unique_ptr<TextStream> text;  // Null: no text is wanted, or the end was rendered.
    int32_t rendered = 0;              // Ids that went through `text`.
    int32_t sent = 0;   // Ids that the client was given, with their text; above 0 in a resume.
    TextDelta pending;  // Text of ids up to `rendered` that the client was not given yet.
    bool calls_tools = false;  // The text of ids up to `rendered` has a tool call.
    std::optional<SequenceEnd> end;
    TimeUs last_token_us = 0;  // 0: no tokens came in this session.
  };

  // REQUIRES of the methods below: mutex_ is held.
  void SetUp();
  bool IsSilentEnd(TokenId id) const;
  void Render(int32_t index, TimeUs now);
  // After new text in `pending`, which the client has already if `has`.
  void NotePending(int32_t index, bool has);
  void CutAtStop(int32_t index, const StopMatch& stop, TimeUs now);
  void AppendPromptLogprobs(PromptLogprobs& logprobs);
  std::string CheckFrame(const Frame& frame) const;
  void NoteFingerprint(const Frame& frame);
  void AppendIds(Frame& frame, FrameEffects* effects, TimeUs now);
  void NoteEnd(FrameEffects* effects) const;
  void EndSequence(int32_t index, FinishReason reason, const Usage& usage,
                   const RequestTimings& timings, TimeUs now);
  // The scheduler's end of a sequence that the router has ended.
  void TakeLateEnd(SequenceEnd& end, const Frame& frame, FrameEffects* effects, TimeUs now) const;
  FinishedRequest Finished() const;
  bool AllFinished() const;
  // All sequences have their end, and that of a stop string is to come from the scheduler too.
  bool EndOwed() const;
  // The sequence that ended last; the first of several. REQUIRES: AllFinished().
  const FinishEvent& LastEnd() const;
  Usage TotalUsage() const;
  std::string Outcome() const;
  RequestReport MakeReport(TimeUs now) const;
  bool AllSent() const;
  // The prompt tokens that were already in the KV cache. REQUIRES: the session was accepted.
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
  const SpanContext trace_;

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
  AttemptId attempt_;  // The latest attempt; 0: none yet.
  Acceptance acceptance_;
  ClientState client_state_;
  TimeUs begun_us_;  // When the first session of the request was made.
  bool repeats_ = false;
  bool report_owed_ = false;  // LastReport was not complete.
  int32_t submits_ = 0;
  int64_t first_token_after_us_ = -1;  // From begun_us_, also of the session that was continued.
  TimeUs first_token_us_ = 0;
  int32_t turn_ = 0;  // The sequence whose events the client gets next.
  std::vector<Cut> cuts_;
  std::optional<RequestTimings> failed_timings_;  // Of a sequence that failed.

  bool writing_ = false;  // Set by Take, cleared by WriteDone.
  TimeUs last_write_us_;  // When the last write began or ended.
};

}  // namespace fathom::router
