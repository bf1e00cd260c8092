// scheduler/transport/grpc_reflection.h: server reflection as a service on the driver's completion
// queue, for the reason given in scheduler/transport/grpc_health.h. It also answers calls of
// unknown methods. No stream holds a thread. Thread: the driver's. The object must outlive the
// draining of the queue.
#pragma once

#include <grpcpp/completion_queue.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>
#include <vector>

namespace fathom::scheduler {

class GrpcReflection {
 public:
  // The full names of the services to list besides reflection itself.
  explicit GrpcReflection(std::vector<std::string> services);
  ~GrpcReflection();

  void Register(grpc::ServerBuilder* builder);
  // Called after the server has started: accepts calls from `queue`.
  void Start(grpc::ServerCompletionQueue* queue);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::scheduler
