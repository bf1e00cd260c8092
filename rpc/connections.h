// rpc/connections.h: accepts a gRPC server's connections and watches over them, for gRPC 1.51 does
// neither well: its own acceptor is deaf for ever once the process ran out of descriptors once, it
// does not bound connections, and it lets a client open streams and cancel them without end. Here a
// full process closes the connection that has been idle for the longest and takes the new one, and
// a connection that only costs (many calls that end before anything was answered, many bytes that
// belong to no call) is cut.
//
// Thread: one of its own accepts and watches. CallBegan, CallEnded and the other calls come from
// any thread; one mutex guards the table.
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

namespace fathom::rpc {

struct ConnectionLimits {
  // 0: half of what the descriptor limit leaves after `descriptors_reserved` (a connection takes
  // two descriptors while it is watched).
  size_t connections_max = 0;
  // For the process' own files and for the connections that it opens itself.
  size_t descriptors_reserved = 256;
  // Calls of one connection that were cancelled before anything was answered, or refused because
  // the connection has too many: so many a second, and so many at once.
  double abandoned_per_second_max = 200;
  double abandoned_burst = 2048;
  // Bytes of one connection that belong to no message: headers, resets, settings. A call that was
  // answered may have cost so many. A connection is cut after 2 s beyond it, for a busy process
  // learns late that bytes belong to a call, and at once when it gives up many calls.
  int64_t stray_bytes_burst = 1 << 20;
  int64_t stray_bytes_per_second = 128 << 10;
  int64_t stray_bytes_per_answer = 1 << 10;
  // A call that waits for its message may have so much of it on the way, for so many calls, unless
  // the connection gives up many calls before their messages.
  int64_t message_bytes_max = PortLimits{}.message_bytes_max;
  int64_t messages_on_the_way_max = 8;
  // Calls of one connection. A client that has learned the port's limit of streams has fewer.
  int64_t calls_max = 2048;
  // An address whose connection was cut gets none for so long.
  std::chrono::milliseconds barred_after_cut{5000};
  // Only a proxy reaches the port: a connection carries the calls of many clients. None is cut, and
  // no call is refused for their number.
  bool of_a_proxy = false;
};

struct ConnectionStats {
  int64_t open = 0;
  int64_t accepted_total = 0;
  int64_t evicted_total = 0;  // Idle ones closed in favour of new ones.
  int64_t refused_total = 0;  // Closed at once: all are taken and none is idle, or after a cut.
  int64_t cut_total = 0;      // Hostile ones.
};

enum class CallEnd { kAnswered, kAbandoned };

class Connections {
 public:
  Connections(Listener listener, const ConnectionLimits& limits);
  ~Connections();  // Stops.

  int port() const;

  // Once, before the server is built: the server gets its connections from here.
  void AddTo(grpc::ServerBuilder* builder);
  // After the server has started. `tick` is called about four times a second on the watching
  // thread.
  void Start(std::function<void()> tick = {});
  // No connection is accepted any more. REQUIRES: called before the server is shut down.
  void Stop();

  // `peer` is grpc::ServerContext::peer(), which names the connection.
  // Returns how many calls the connection has with this one.
  int64_t CallBegan(const std::string& peer);
  // A call's message has begun to be awaited; it has come, and its bytes are no stray ones; it will
  // not come.
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
