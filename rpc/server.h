// rpc/server.h: a gRPC server of one port, of calls in bytes: every call is seen when its headers
// come, so that calls whose message never comes are bounded and time out, and no stream holds a
// thread. Health (grpc.health.v1) and reflection (v1 and v1alpha) are part of it.
//
// Thread: handlers run on gRPC's callback threads and must not block. Methods from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/listener.h"
#include "rpc/call.h"
#include "rpc/connections.h"
#include "rpc/port_limits.h"

namespace fathom::rpc {

struct ServerOptions {
  std::string name;  // Of the memory quota.
  PortLimits port;
  ConnectionLimits connections;
  // A call's message must come within this time after its headers.
  int64_t message_timeout_ms = 10'000;
  // Calls that wait for their message, of all connections together; beyond it the oldest ends.
  size_t calls_without_message_max = 4096;
  size_t watchers_max = 256;            // Of health.
  size_t reflection_streams_max = 256;  // Streams; a thread is held by none of them.
};

// Gets a call and its first message, and sees to it that the call ends.
using CallHandler = std::function<void(std::shared_ptr<Call>, grpc::ByteBuffer)>;

class Server {
 public:
  explicit Server(const ServerOptions& options);
  ~Server();  // Stops.

  // Before Start. `service` is listed by reflection and answered for by health.
  void AddService(const std::string& service);
  void AddMethod(const std::string& path, CallHandler handler);  // "/fathom.v1.Inference/Generate"

  // UNAVAILABLE: gRPC does not start.
  absl::Status Start(Listener listener);
  int port() const;

  // What health says of the server and of each service; not serving at first.
  void SetServing(bool serving);

  // Calls get until `grace_ms` is over, then they are cancelled; returns when all are gone.
  void Stop(int64_t grace_ms);

  ConnectionStats stats() const;
  // Calls that wait for their first message.
  size_t calls_without_message() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::rpc
