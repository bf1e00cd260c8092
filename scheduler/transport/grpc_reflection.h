// scheduler/transport/grpc_reflection.h: reflection as a service of the driver's completion queue,
// for the reason that scheduler/transport/grpc_health.h gives; calls of methods that nobody has end
// here too. No stream holds a thread. Thread: the driver's. It must outlive the draining of the
// queue.
#pragma once

#include <grpcpp/completion_queue.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>
#include <vector>

namespace fathom::scheduler {

class GrpcReflection {
 public:
  // Full names of the services to be listed, besides its own.
  explicit GrpcReflection(std::vector<std::string> services);
  ~GrpcReflection();

  void Register(grpc::ServerBuilder* builder);
  // After the server has started: takes calls from `queue`.
  void Start(grpc::ServerCompletionQueue* queue);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::scheduler
