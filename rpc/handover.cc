#include "rpc/handover.h"

#include <grpcpp/security/server_credentials.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>

namespace fathom::rpc {
namespace {

// With this many floods at one moment, a new connection waits until one of them ends or is cut.
constexpr size_t kThreads = 4;
constexpr size_t kWaitingMax = 1024;

}  // namespace

Handover::Handover() : waiting_(kWaitingMax) {}
Handover::~Handover() { Stop(); }

void Handover::AddTo(grpc::ServerBuilder* builder,
                     const std::shared_ptr<grpc::ServerCredentials>& credentials) {
  for (size_t i = 0; i < kThreads; ++i) {
    acceptors_.push_back(builder->experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials));
  }
}

void Handover::Start() {
  for (size_t i = 0; i < kThreads; ++i) threads_.emplace_back([this, i] { Run(i); });
}

void Handover::Stop() {
  waiting_.Close();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  while (const std::optional<int> fd = waiting_.Pop()) {
    shutdown(*fd, SHUT_RDWR);  // The connection may have another descriptor.
    close(*fd);
  }
}

bool Handover::Give(int fd) { return waiting_.TryPush(int{fd}); }

void Handover::Run(size_t i) {
  while (const std::optional<int> fd = waiting_.Pop()) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
    connection.fd = *fd;
    acceptors_[i]->HandleNewConnection(&connection);
  }
}

}  // namespace fathom::rpc
