// worker/cluster/health_server.h: the small gRPC server of a worker: grpc.health.v1, reflection,
// and WorkerTools (worker.proto). It is SERVING only while the worker is registered with a
// scheduler. Thread: any. One Trace may run at a time, on a thread of its own.
#pragma once

#include <memory>

#include "common/listener.h"
#include "common/status.h"
#include "rpc/server.h"
#include "worker/engine/step_trace.h"

namespace fathom::worker {

class HealthServer {
 public:
  // The server starts as NOT_SERVING. `recorder` outlives the server, whose destructor closes it.
  // UNAVAILABLE: gRPC does not start. With `tls`, WorkerTools serve only operators
  // (common/tls_files.h), and health every peer of the cluster.
  static absl::StatusOr<std::unique_ptr<HealthServer>> Start(Listener listener, const TlsFiles& tls,
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
