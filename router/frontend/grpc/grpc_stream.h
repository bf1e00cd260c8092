// router/frontend/grpc/grpc_stream.h: the SessionStream (router/sessions/session_stream.h) of one
// server-streaming gRPC call. Thread: gRPC's callbacks, and any thread that wakes the stream. The
// call and the session hold the stream.
#pragma once

#include <memory>
#include <utility>

#include "router/sessions/session_stream.h"
#include "rpc/call.h"

namespace fathom::router {

class GrpcStream final : public rpc::CallSink, public SessionStream {
 public:
  // For a call that just came. The call holds the stream until its OnDone.
  static std::shared_ptr<GrpcStream> Make(std::shared_ptr<rpc::Call> call, Sessions* sessions);

  void Break() override { call_->Break(); }

  void OnWriteDone(bool ok) override { Written(ok); }
  void OnCancel() override { Cancelled(); }
  void OnDone() override { Closed(); }

 private:
  GrpcStream(std::shared_ptr<rpc::Call> call, Sessions* sessions)
      : SessionStream(sessions), call_(std::move(call)) {}
  void Write(const ClientEvent& event) override;

  const std::shared_ptr<rpc::Call> call_;
};

}  // namespace fathom::router
