// router/sessions/session_state.h: the three states of a session (session.h): how far its Submit
// is, what is known of its record, and what its client's stream may be given. Plain data; Session
// alone changes it, under its lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

#include "common/status.h"
#include "router/sessions/scheduler_link.h"

namespace fathom::router {

// ---- Towards the scheduler. The last three are final: nothing is expected from upstream.

struct WaitingSubmit {};  // For its turn, for room in the link, or for a leader.
struct SendingSubmit {    // A Submit is being handed over to the link.
  StreamId stream;
};
struct Subscribed {  // A Submit was handed over: an answer and frames come over this stream.
  StreamId stream;
};
struct FinishedSession {};  // Every sequence has its end.
struct FailedSession {      // What waits is given out, then the status.
  absl::Status status;
  bool of_sequence = false;  // By the cluster's word: the record would fail again.
};
struct LeftSession {};  // The client left before its end: it is suspended upstream.

using SubmitState = std::variant<WaitingSubmit, SendingSubmit, Subscribed, FinishedSession,
                                 FailedSession, LeftSession>;

inline bool IsOver(const SubmitState& state) {
  return std::holds_alternative<FinishedSession>(state) ||
         std::holds_alternative<FailedSession>(state) || std::holds_alternative<LeftSession>(state);
}

// ---- The record.

struct NoRecord {};              // A resume that knows only its key: it comes with Accepted.
struct NewRecord {};             // No scheduler has accepted it.
struct RecordAcceptedBefore {};  // In another session of this record, not yet in this one.
struct AcceptedRecord {
  int32_t cached_tokens = 0;  // Of the prompt, at the first acceptance.
  std::string fingerprint;
};

using Acceptance = std::variant<NoRecord, NewRecord, RecordAcceptedBefore, AcceptedRecord>;

inline bool HasRecord(const Acceptance& state) { return !std::holds_alternative<NoRecord>(state); }
inline bool IsAccepted(const Acceptance& state) {
  return std::holds_alternative<AcceptedRecord>(state);
}

// ---- Towards the client.

struct UnbegunClient {};  // The sink does not know the session yet.
struct StreamingClient {  // Gets what there is.
  bool started_sent = false;
  size_t prompt_logprobs_sent = 0;
  bool keep_alive_due = false;
};
struct LeftClient {  // What waits is not wanted any more; the status is for whoever still listens.
  absl::Status status;
  bool told = false;
};
struct EndedClient {};  // The last event was given out.

using ClientState = std::variant<UnbegunClient, StreamingClient, LeftClient, EndedClient>;

}  // namespace fathom::router
