// scheduler/transport/grpc_health.h: grpc.health.v1 as an asynchronous service of the driver's
// completion queue. gRPC's own health service would bring callback threads that poll the same
// sockets (+60 % CPU a token). Thread: the driver's. It must outlive the draining of the queue.
#pragma once

#include <grpcpp/completion_queue.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

namespace fathom::scheduler {

class GrpcHealth {
 public:
  // Answers for "" and for `service`; any other name is unknown to it.
  explicit GrpcHealth(std::string service);
  ~GrpcHealth();

  static std::string service_full_name();  // "grpc.health.v1.Health"

  void Register(grpc::ServerBuilder* builder);
  // After the server has started: takes calls from `queue`.
  void Start(grpc::ServerCompletionQueue* queue);
  // Tells watchers too.
  void SetServing(bool serving);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::scheduler
