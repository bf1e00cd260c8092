// worker/cluster/health_server.h: a worker's own small gRPC server: grpc.health.v1, reflection, and
// WorkerTools (worker.proto) for people. It serves only when the worker is registered with a
// scheduler. Thread: any; a Trace has a thread of its own while it waits, and there is one at a
// time.
#pragma once

#include <memory>

#include "common/listener.h"
#include "common/status.h"
#include "rpc/server.h"
#include "worker/engine/step_trace.h"

namespace fathom::worker {

class HealthServer {
 public:
  // NOT_SERVING at first. `recorder` outlives the server, which closes it at its end. UNAVAILABLE:
  // gRPC does not start.
  static absl::StatusOr<std::unique_ptr<HealthServer>> Start(Listener listener,
                                                             const rpc::ServerOptions& options,
                                                             StepRecorder* recorder);
  ~HealthServer();

  int port() const;
  void SetServing(bool serving);

 private:
  struct Impl;
  explicit HealthServer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::worker
