// rpc/handover.h: gives accepted connections to a gRPC server. gRPC reads and parses what a new
// connection has sent on the thread that gives it, for as long as more bytes are there: a flood
// keeps that thread. So each connection is given by one of several threads, which do nothing else,
// and whoever accepts and watches connections is never kept.
//
// Thread: Give by one thread; the object has threads of its own. An acceptor of gRPC holds a mutex
// while it works on a connection, so each thread has its own acceptor.
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
  void AddTo(grpc::ServerBuilder* builder);
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
