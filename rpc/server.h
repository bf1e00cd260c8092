// rpc/server.h: a gRPC server of one port that handles calls as bytes. It sees every call when its
// headers come, so calls whose message never comes are limited and time out, and no stream holds a
// thread. Health (grpc.health.v1) and reflection (v1 and v1alpha) are built in.
//
// Thread: handlers run on gRPC's callback threads and must not block, or other calls wait. Any
// thread may call the methods.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/listener.h"
#include "common/tls_files.h"
#include "rpc/call.h"
#include "rpc/connections.h"
#include "rpc/port_limits.h"

namespace fathom::rpc {

// Decides whether a call is handled, when its headers come and before its message is read. It sets
// the call's tenant, or returns the status that ends the call. `known`: the server has the method.
// Runs on gRPC's threads.
using CallGuard = std::function<grpc::Status(Call* call, bool known)>;

struct ServerOptions {
  std::string name;  // "router", "worker": in messages, and of the memory quota.
  PortLimits port;
  ConnectionLimits connections;
  // A call's message must come within this time after its headers.
  int64_t message_timeout_ms = 10'000;
  // Calls of all connections that wait for their message. Beyond it the oldest one is ended.
  size_t calls_without_message_max = 4096;
  size_t watchers_max = 256;            // Clients that watch the health service.
  size_t reflection_streams_max = 256;  // Streams; none of them holds a thread.
  CallGuard guard;                      // Empty: every call is handled.
  TlsFiles tls;                         // Checked (common/tls_files.h), or none.
};

// Gets a call and its first message. The handler must make sure that the call ends.
using CallHandler = std::function<void(std::shared_ptr<Call>, grpc::ByteBuffer)>;

class Server {
 public:
  explicit Server(const ServerOptions& options);
  ~Server();  // Stops.

  // Called before Start. Reflection lists `service`, and health answers for it.
  void AddService(const std::string& service);
  void AddMethod(const std::string& path, CallHandler handler);  // "/fathom.v1.Inference/Generate"

  // UNAVAILABLE: gRPC did not start.
  absl::Status Start(Listener listener);
  int port() const;
  // The paths of all methods, those of health and reflection too.
  std::vector<std::string> methods() const;

  // Sets the health status of the server and of each service, which is "not serving" at first.
  void SetServing(bool serving);

  // Calls may continue for `grace_ms` and are then cancelled. Returns when all have ended.
  void Stop(int64_t grace_ms);

  ConnectionStats stats() const;
  // Calls that wait for their first message.
  size_t calls_without_message() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::rpc
