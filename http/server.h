// http/server.h: a small HTTP/1.1 server for any number of routes. One thread of its own serves all
// connections, each in a coroutine. Every wait for a client is bounded, so a client that is silent,
// sends slowly or does not read delays no other one. Beyond `connections_max` the connection that
// has been without a request for the longest time is closed; if all of them have one that is
// answered now, the new connection gets 503.
//
// A body is read only on a route that takes one; elsewhere such a request gets 413, and its
// connection is closed.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "common/listener.h"
#include "http/routes.h"

namespace fathom::http {

struct Limits {
  int header_ms = 10'000;  // From the first byte of a request to the end of its header.
  int body_ms = 30'000;    // From then on to the end of its body.
  int answer_ms = 10'000;  // For the client to take an answer.
  int end_ms = 60'000;     // The same for the answer, or the end of the stream, of an exchange.
  int idle_ms = 60'000;    // Between two requests, and before the first one.
  size_t connections_max = 256;
  size_t header_bytes_max = 16 << 10;
  size_t bodies_bytes_max = size_t{256} << 20;  // Of all bodies that are being read.
};

class TlsContext;

// Who reaches the routes. Both may be empty.
struct Protection {
  Guard guard;
  const TlsContext* tls = nullptr;  // Outlives the server.
};

class Server {
 public:
  // `answered` is called with the status of every answer, on the server's thread; may be empty.
  Server(Listener listener, Routes routes, std::function<void(int status)> answered = {},
         const Limits& limits = {}, Protection protection = {});
  // Tells every exchange that its client left, waits until all are ended, and closes the
  // connections.
  ~Server();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::http
