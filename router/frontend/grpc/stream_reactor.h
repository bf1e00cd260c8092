// router/frontend/grpc/stream_reactor.h: one server-streaming call: writes what its session gives,
// one write in flight. Thread: gRPC's callbacks and whoever wakes it. It lives until OnDone and as
// long as a session may wake it.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <mutex>

#include "common/status.h"
#include "router/sessions/sessions.h"

namespace fathom::router {

class StreamReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>, public ClientSink {
 public:
  // For a call that just came; the result is also held by itself until OnDone.
  static std::shared_ptr<StreamReactor> Make(grpc::CallbackServerContext* context,
                                             Sessions* sessions);

  // Exactly one of the two is called, once. Refuse: the call ends with `status`. Begin: the session
  // is submitted.
  void Refuse(const absl::Status& status);
  void Begin(std::shared_ptr<Session> session);

  void Wake() override;
  void Break() override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  StreamReactor(grpc::CallbackServerContext* context, Sessions* sessions)
      : sessions_(sessions), context_(context) {}

  Sessions* const sessions_;
  std::shared_ptr<StreamReactor> self_;
  std::shared_ptr<Session> session_;  // Set by Begin, before anything wakes this.
  grpc::ByteBuffer buffer_;           // Owned by the write in flight.

  std::mutex mutex_;  // Guards begun_ and cancelled_.
  bool begun_ = false;
  bool cancelled_ = false;
  // Guards context_, which ends with OnDone. Recursive, for a cancelled call may end within
  // TryCancel.
  std::recursive_mutex context_mutex_;
  grpc::CallbackServerContext* context_;
};

}  // namespace fathom::router
