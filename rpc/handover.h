// rpc/handover.h: passes accepted connections to a gRPC server. gRPC reads and parses the bytes of
// a new connection on the thread that passes the connection, for as long as more bytes arrive, so a
// flood occupies that thread. The threads of this object do nothing but pass connections. The
// thread that accepts and watches connections is therefore never occupied.
//
// Thread: one thread calls Give. An acceptor of gRPC holds a mutex while it works on a connection,
// so each thread of this object has its own acceptor.
#pragma once

#include <grpcpp/server_builder.h>

#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

#include "common/inbox.h"

namespace fathom::rpc {

class Handover {
 public:
  Handover();
  ~Handover();  // Stops.

  // Once, before the server is built.
  void AddTo(grpc::ServerBuilder* builder,
             const std::shared_ptr<grpc::ServerCredentials>& credentials);
  // After the server has started.
  void Start();
  // Connections that wait are closed. REQUIRES: called before the server is shut down.
  void Stop();

  // Takes ownership of `fd`. False: too many wait, and the caller still owns it.
  [[nodiscard]] bool Give(int fd);

 private:
  void Run(size_t i);

  Inbox<int> waiting_;
  std::vector<std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor>> acceptors_;
  std::vector<std::thread> threads_;
};

}  // namespace fathom::rpc
