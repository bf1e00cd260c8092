// router/sessions/session_stream.h: the part of a client's stream that all front ends share. It
// keeps at most one write in flight, handles a client that leaves before its session has begun, and
// leaves the session exactly once. A front end derives a class that writes events in its protocol
// and that calls the protected methods below when something happens to its connection.
//
// A stream begins with Started, unless it fails before. Its last event is a FinishEvent with `last`
// or an EndEvent. A refused request gets an EndEvent alone.
//
// Thread: any; the thread that wakes the stream writes. No lock is held while Write or Break is
// called. The session holds the stream until Closed.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "common/status.h"
#include "router/sessions/sessions.h"

namespace fathom::router {

class SessionStream : public ClientSink {
 public:
  // REQUIRES: exactly one of Begin and Refuse is called, once. Begin submits `session`, whose sink
  // is this stream.
  void Begin(std::shared_ptr<Session> session);
  // There is no session; the client gets `status`.
  void Refuse(const absl::Status& status) { Write(EndEvent{status}); }

  void Wake() final;

 protected:
  // REQUIRES: `sessions` outlives the stream.
  explicit SessionStream(Sessions* sessions) : sessions_(sessions) {}

  // Begins to write `event`. Unless the event is the last one, the derived class must call Written
  // when the write has ended: after Write has returned, or from another thread. Write is not called
  // again before Written.
  virtual void Write(const ClientEvent& event) = 0;

  // The write has ended. Not `ok`: the client cannot be reached any more.
  void Written(bool ok);
  // The client cancelled, or its connection broke. If a session was begun, one more EndEvent is
  // written, which ends the stream.
  void Cancelled();
  // Of the session. REQUIRES: called by Write, for an event other than an EndEvent.
  std::vector<TokenId> PromptIds() const { return session_->PromptIds(); }
  // The connection has ended and makes no more calls. REQUIRES: called once.
  void Closed();

 private:
  Sessions* const sessions_;

  std::mutex mutex_;  // Begin and Cancelled may run at the same time.
  bool cancelled_ = false;
  std::shared_ptr<Session> session_;  // Set by Begin, before the first Wake.
};

}  // namespace fathom::router
