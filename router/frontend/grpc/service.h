// router/frontend/grpc/service.h: the public gRPC services. They convert messages and call
// InferenceApi (router/api/inference_api.h), which has the policy. Thread: gRPC's callbacks and the
// API's pool. Nothing blocks in a callback.
#pragma once

#include <memory>

#include "common/listener.h"
#include "common/status.h"
#include "router/api/inference_api.h"
#include "rpc/server.h"

namespace fathom::router {

class RouterService {
 public:
  // REQUIRES: `api` outlives the service.
  explicit RouterService(const InferenceApi* api) : api_(api) {}
  ~RouterService() { Stop(); }

  // Serves both services, grpc.health.v1 and reflection.
  absl::Status Start(Listener listener, const rpc::ServerOptions& options);
  // REQUIRES of the next two: Start was called.
  rpc::ConnectionStats connections() const { return server_->stats(); }
  // Sets the answer of the health service, which is "not serving" at first.
  void SetServing(bool serving) { server_->SetServing(serving); }
  // Ends all calls and returns when they have ended.
  void Stop();

 private:
  const InferenceApi* const api_;
  std::unique_ptr<rpc::Server> server_;
};

}  // namespace fathom::router
