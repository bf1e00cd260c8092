// router/sessions/session_stream.h: a client's stream over its session, for every front end: at
// most one write is in flight, a client that leaves before its session has begun is not lost, and a
// session is left exactly once. A front end derives from it a class that writes events in its own
// protocol, and tells this base what happens to its connection.
//
// The events of one stream are Started, then what there is, then at the latest one with `last` or
// an EndEvent, after which nothing is written. A refusal is an EndEvent alone.
//
// Thread: any; whoever wakes the session writes. No lock is held while Write or Break is called.
// The session holds the stream until Closed.
#pragma once

#include <memory>
#include <mutex>

#include "common/status.h"
#include "router/sessions/sessions.h"

namespace fathom::router {

class SessionStream : public ClientSink {
 public:
  // Exactly one of the two is called, once. Begin: the session is submitted. Its sink is this.
  void Begin(std::shared_ptr<Session> session);
  // Nothing was made; the client is told `status`.
  void Refuse(const absl::Status& status) { Write(EndEvent{status}); }

  void Wake() final;

 protected:
  // `sessions` outlives this.
  explicit SessionStream(Sessions* sessions) : sessions_(sessions) {}

  // Begins to write `event`; called again only after Written. Unless the event ends the stream,
  // Written follows, after this has returned or from another thread.
  virtual void Write(const ClientEvent& event) = 0;

  // The write has ended. Not `ok`: the client cannot be reached any more.
  void Written(bool ok);
  // The client cancelled or its connection broke. The stream must still be ended: one more EndEvent
  // follows where something was begun.
  void Cancelled();
  // The connection is over and no call of this follows. Once.
  void Closed();

 private:
  Sessions* const sessions_;

  std::mutex mutex_;  // For the race of Begin and Cancelled.
  bool cancelled_ = false;
  std::shared_ptr<Session> session_;  // Set by Begin, before anything wakes this.
};

}  // namespace fathom::router
