// router/frontend/grpc/service.h: the public gRPC services. They convert messages and call
// InferenceApi (router/api/inference_api.h), which has the policy. Thread: gRPC's callbacks and the
// API's pool. Nothing blocks in a callback.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/listener.h"
#include "common/status.h"
#include "router/api/access_control.h"
#include "router/api/inference_api.h"
#include "rpc/server.h"

namespace fathom::router {

class RouterService {
 public:
  // REQUIRES: both outlive the service. `access` may be null: every call is admitted.
  explicit RouterService(const InferenceApi* api, const AccessControl* access = nullptr)
      : api_(api), access_(access) {}
  ~RouterService() { Stop(); }

  // Serves both services, grpc.health.v1 and reflection.
  absl::Status Start(Listener listener, const rpc::ServerOptions& options);
  // REQUIRES of the next three: Start was called.
  std::vector<std::string> methods() const { return server_->methods(); }
  rpc::ConnectionStats connections() const { return server_->stats(); }
  // Sets the answer of the health service, which is "not serving" at first.
  void SetServing(bool serving) { server_->SetServing(serving); }
  // Ends all calls and returns when they have ended.
  void Stop();

 private:
  const InferenceApi* const api_;
  const AccessControl* const access_;
  std::unique_ptr<rpc::Server> server_;
};

}  // namespace fathom::router
