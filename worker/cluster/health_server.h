// worker/cluster/health_server.h: a worker's own small gRPC server: grpc.health.v1, reflection, and
// WorkerTools (worker.proto) for people. It serves only when the worker is registered with a
// scheduler. Thread: any.
#pragma once

#include <memory>
#include <string>

#include "common/status.h"
#include "worker/engine/step_trace.h"

namespace fathom::worker {

class HealthServer {
 public:
  // Listens on host:port (0: any free one); NOT_SERVING at first. UNAVAILABLE when it cannot bind.
  // `recorder` outlives the server, which closes it at its end.
  static absl::StatusOr<std::unique_ptr<HealthServer>> Start(const std::string& host, int port,
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
