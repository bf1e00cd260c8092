// router/frontend/grpc/service.h: the public gRPC services. Converts messages to types and calls
// admission, text and sessions; owns no policy. Nothing blocks in a gRPC callback: what may take
// long (text beyond inline_bytes_max) goes to the work pool, and a full pool is RESOURCE_EXHAUSTED
// at once. Thread: gRPC's callbacks and the pool's threads.
#pragma once

#include <memory>
#include <string>

#include "common/clock.h"
#include "common/status.h"
#include "router/api/chat_renderer.h"
#include "router/api/model_folder.h"
#include "router/api/work_pool.h"
#include "router/sessions/sessions.h"
#include "rpc/server.h"
#include "text/tokenizer.h"

namespace fathom::router {

// What /metrics counts beside sessions. From any thread.
class ServiceObserver {
 public:
  virtual ~ServiceObserver() = default;
  virtual void Refused(absl::StatusCode) {}  // Before a session was made.
};

struct ServiceParts {
  Sessions* sessions = nullptr;
  const ModelFolder* folder = nullptr;
  std::string served_name;
  const Tokenizer* tokenizer = nullptr;  // Null: token ids only.
  const ChatRenderer* chat = nullptr;    // Null: no chat template.
  WorkPool* pool = nullptr;
  ServiceObserver* observer = nullptr;
  size_t inline_bytes_max = 4 << 10;
  bool behind_proxy = false;  // Clients are told apart by "x-forwarded-for", not by their peers.
};

class RouterService {
 public:
  // What `parts` points to outlives this.
  explicit RouterService(ServiceParts parts);
  ~RouterService();

  // Serves both services, grpc.health.v1 and reflection.
  absl::Status Start(Listener listener, const rpc::ServerOptions& options);
  // REQUIRES: Start was called.
  rpc::ConnectionStats connections() const;
  // Sets the health service's answer from Readiness. Call some times a second.
  void UpdateHealth();
  // New requests are refused and health is NOT_SERVING from now on.
  void Drain();
  // Ends all calls; returns when they are gone.
  void Stop();

 private:
  class Handler;
  class Methods;
  std::unique_ptr<Handler> handler_;
  std::unique_ptr<Methods> methods_;
  std::unique_ptr<rpc::Server> server_;
  bool serving_ = false;
};

}  // namespace fathom::router
