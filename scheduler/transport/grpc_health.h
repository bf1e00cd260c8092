// scheduler/transport/grpc_health.h: grpc.health.v1 as an asynchronous service on the driver's
// completion queue. gRPC's own health service would add callback threads that poll the same
// sockets, which costs 60 % more CPU per token. Thread: the driver's. The object must outlive the
// draining of the queue.
#pragma once

#include <grpcpp/completion_queue.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

namespace fathom::scheduler {

class GrpcHealth {
 public:
  // Answers for "" and for `service`; any other name is unknown.
  explicit GrpcHealth(std::string service);
  ~GrpcHealth();

  static std::string service_full_name();  // "grpc.health.v1.Health"

  void Register(grpc::ServerBuilder* builder);
  // Called after the server has started: accepts calls from `queue`.
  void Start(grpc::ServerCompletionQueue* queue);
  // Also tells the watching clients.
  void SetServing(bool serving);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::scheduler
