// rpc/connections.h: accepts the connections of a gRPC server and watches them. gRPC 1.51 does
// neither well: after the process once ran out of descriptors, gRPC's acceptor never accepts again;
// gRPC does not limit the number of connections; and it lets a client open and cancel streams
// without limit. With this class a full process closes the connection that has been idle for the
// longest time and accepts the new one. It cuts a connection that only causes cost: many calls that
// end before an answer, or many bytes that belong to no call. Each connection has a gate
// (rpc/read_gate.h), which ends it before gRPC parses a flood.
//
// Thread: a thread of its own accepts and watches. Any thread may call the methods; one mutex
// guards the table.
#pragma once

#include <grpcpp/server_builder.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/listener.h"
#include "rpc/port_limits.h"
#include "rpc/read_gate.h"

namespace fathom::rpc {

struct ConnectionLimits {
  // 0: half of the descriptors that the limit leaves after `descriptors_reserved` (a watched
  // connection takes two descriptors).
  size_t connections_max = 0;
  // For the process' own files and for the connections that it opens.
  size_t descriptors_reserved = 256;
  // Calls of one connection that were cancelled before an answer, or refused because the connection
  // has too many: the limit per second, and at once.
  double abandoned_per_second_max = 200;
  double abandoned_burst = 2048;
  // Bytes of one connection that belong to no message: headers, resets, settings. An answered call
  // may have cost stray_bytes_per_answer of them. A connection beyond the limits is cut after 2 s,
  // because a busy process learns late that bytes belong to a call; if it gives up many calls, it
  // is cut at once.
  int64_t stray_bytes_burst = 1 << 20;
  int64_t stray_bytes_per_second = 128 << 10;
  int64_t stray_bytes_per_answer = 1 << 10;
  // A call that waits for its message may have this many bytes of it on the way, for up to
  // messages_on_the_way_max calls, unless the connection gives up many calls before their messages.
  int64_t message_bytes_max = PortLimits{}.message_bytes_max;
  int64_t messages_on_the_way_max = 8;
  // Calls of one connection. A client that knows the port's limit of streams has fewer.
  int64_t calls_max = 2048;
  // What gRPC may be given to parse.
  GateLimits gate;
  // The time for which an address whose connection was cut gets no new connection.
  std::chrono::milliseconds barred_after_cut{5000};
  // Only a proxy reaches the port, so a connection carries the calls of many clients. Then no
  // connection is cut, and no call is refused because of their number.
  bool of_a_proxy = false;
  // The bytes are encrypted, so nothing counts their frames: a connection has no gate, and is cut
  // by its calls and its stray bytes alone.
  bool tls = false;
};

struct ConnectionStats {
  int64_t open = 0;
  int64_t accepted_total = 0;
  int64_t evicted_total = 0;  // Idle connections that were closed for new ones.
  // Closed at once: all places are taken and none is idle, or the address was cut a moment ago.
  int64_t refused_total = 0;
  int64_t cut_total = 0;  // Cut because of their cost.
};

enum class CallEnd { kAnswered, kAbandoned };

class Connections {
 public:
  Connections(Listener listener, const ConnectionLimits& limits);
  ~Connections();  // Stops.

  int port() const;

  // Called once, before the server is built. The server then gets its connections from this object.
  void AddTo(grpc::ServerBuilder* builder,
             const std::shared_ptr<grpc::ServerCredentials>& credentials);
  // Called after the server has started. The watching thread calls `tick` about four times a
  // second.
  void Start(std::function<void()> tick = {});
  // Stops accepting. REQUIRES: called before the server is shut down.
  void Stop();

  // `peer` is grpc::ServerContext::peer(), which names the connection. Returns the number of the
  // connection's calls, this one included.
  int64_t CallBegan(const std::string& peer);
  // The call waits for its message; the message came, so its bytes are not stray; it will not come.
  void MessageAwaited(const std::string& peer);
  void MessageCame(const std::string& peer, size_t bytes);
  void NoMessageCame(const std::string& peer);
  void CallEnded(const std::string& peer, CallEnd end);

  ConnectionStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::rpc
