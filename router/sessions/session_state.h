// router/sessions/session_state.h: the three states that a session (session.h) has at the same
// time: of its Submit, of its record and of its client's stream. Plain data; only Session changes
// it, under its mutex.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

#include "common/status.h"
#include "router/sessions/scheduler_link.h"

namespace fathom::router {

// ---- The Submit. The last three states are final: the scheduler sends nothing more.

struct WaitingSubmit {};  // Waits for its turn, for room in the link, or for a leader.
struct SendingSubmit {    // A Submit is being handed over to the link.
  StreamId stream;
};
struct Subscribed {  // A Submit was handed over; an answer and frames come over this stream.
  StreamId stream;
};
struct FinishedSession {};  // Every sequence has its end.
struct FailedSession {      // The client gets what waits for it, then the status.
  absl::Status status;
  bool of_sequence = false;  // The scheduler said that a sequence failed; it would fail again.
};
struct LeftSession {};  // The client left before the end; the scheduler suspends the session.

using SubmitState = std::variant<WaitingSubmit, SendingSubmit, Subscribed, FinishedSession,
                                 FailedSession, LeftSession>;

inline bool IsOver(const SubmitState& state) {
  return std::holds_alternative<FinishedSession>(state) ||
         std::holds_alternative<FailedSession>(state) || std::holds_alternative<LeftSession>(state);
}

// ---- The record.

struct NoRecord {};   // A resume that knows only its key; the record comes with Accepted.
struct NewRecord {};  // No scheduler has accepted the record.
struct RecordAcceptedBefore {};  // Accepted for another session of this record, not for this one.
struct AcceptedRecord {
  int32_t cached_tokens = 0;  // Prompt tokens in the KV cache, at the first acceptance.
  std::string fingerprint;
};

using Acceptance = std::variant<NoRecord, NewRecord, RecordAcceptedBefore, AcceptedRecord>;

inline bool HasRecord(const Acceptance& state) { return !std::holds_alternative<NoRecord>(state); }
inline bool IsAccepted(const Acceptance& state) {
  return std::holds_alternative<AcceptedRecord>(state);
}

// ---- The client's stream.

struct UnbegunClient {};  // The sink does not know the session yet.
struct StreamingClient {  // The client gets events.
  bool started_sent = false;
  size_t prompt_logprobs_sent = 0;
  bool keep_alive_due = false;
};
struct LeftClient {  // The client gets only the status, if it still reads.
  absl::Status status;
  bool told = false;
};
struct EndedClient {};  // Take has returned the last event.

using ClientState = std::variant<UnbegunClient, StreamingClient, LeftClient, EndedClient>;

}  // namespace fathom::router
