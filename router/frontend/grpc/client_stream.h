// router/frontend/grpc/client_stream.h: one server-streaming call: writes what its session gives,
// one write in flight. Thread: gRPC's callbacks and whoever wakes it. It lives until the call is
// over and as long as a session may wake it.
#pragma once

#include <memory>
#include <mutex>

#include "common/status.h"
#include "router/sessions/sessions.h"
#include "rpc/call.h"

namespace fathom::router {

class ClientStream final : public rpc::CallSink, public ClientSink {
 public:
  // For a call that just came; the call holds it until it is over.
  static std::shared_ptr<ClientStream> Make(std::shared_ptr<rpc::Call> call, Sessions* sessions);

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
  ClientStream(std::shared_ptr<rpc::Call> call, Sessions* sessions)
      : sessions_(sessions), call_(std::move(call)) {}

  Sessions* const sessions_;
  const std::shared_ptr<rpc::Call> call_;
  std::shared_ptr<Session> session_;  // Set by Begin, before anything wakes this.

  std::mutex mutex_;  // Guards begun_ and cancelled_.
  bool begun_ = false;
  bool cancelled_ = false;
};

}  // namespace fathom::router
