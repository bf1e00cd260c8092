// http/exchange.h: one request whose answer comes later or is a stream, as its handler sees it. The
// handler gets the request with its body, and exactly one of Answer, End and Abort ends the
// exchange, from any thread. Answers as Server-Sent Events are streams.
//
// While an exchange is open the server reads the connection, so it learns at once that the client
// left, also while nothing is written. A client that closes its sending side counts as one that
// left.
//
// Thread: any. At most one write at a time. The sink is called by the server's thread, with no lock
// held; it must not wait.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "http/message.h"

namespace fathom::http {

class ExchangeSink {
 public:
  virtual ~ExchangeSink() = default;
  // The write of Exchange::Write has ended. Not `ok`: the client cannot be reached any more.
  virtual void OnWritten(bool /*ok*/) {}
  // The client left, or the server stops. The exchange must still be ended.
  virtual void OnHangUp() {}
  // The last event: the exchange was ended, and its connection makes no more calls for it.
  virtual void OnDone() {}
};

class Exchange {
 public:
  virtual ~Exchange() = default;

  // The handler may move parts out of it.
  virtual Request& request() = 0;
  // The client left.
  virtual bool hung_up() const = 0;
  // If the client has left already, OnHangUp follows. REQUIRES: called at most once, before the
  // exchange is ended. The exchange holds the sink until OnDone.
  virtual void SetSink(std::shared_ptr<ExchangeSink> sink) = 0;
  // Runs `work` on the server's thread, later. Dropped if the server has ended.
  virtual void Post(std::function<void()> work) = 0;

  // The whole answer.
  virtual void Answer(Response answer) = 0;

  // Begins a stream: the head of the answer (without its body) goes out with the first write.
  virtual void Begin(Response head) = 0;
  // The next bytes of the stream; OnWritten follows. REQUIRES: Begin was called; the write before
  // has ended.
  virtual void Write(std::string bytes) = 0;
  // The last bytes of the stream, which may be none.
  virtual void End(std::string bytes) = 0;

  // Closes the connection without an answer, or in the middle of it.
  virtual void Abort() = 0;
  // Ends a write in flight as failed: the client counts as one that left.
  virtual void Break() = 0;
};

// Called by the server's thread; it must not wait.
using ExchangeHandler = std::function<void(std::shared_ptr<Exchange>)>;

}  // namespace fathom::http
