#include "router/frontend/grpc/client_stream.h"

#include <utility>

#include "inference.pb.h"
#include "router/frontend/grpc/request_proto.h"
#include "router/frontend/grpc/rpc_error.h"

namespace fathom::router {

std::shared_ptr<ClientStream> ClientStream::Make(std::shared_ptr<rpc::Call> call,
                                                 Sessions* sessions) {
  std::shared_ptr<ClientStream> stream(new ClientStream(std::move(call), sessions));
  stream->call_->SetSink(stream);
  return stream;
}

void ClientStream::Refuse(const absl::Status& status) { call_->End(ToGrpcStatus(status)); }

void ClientStream::Begin(std::shared_ptr<Session> session) {
  session_ = std::move(session);
  bool cancelled = false;
  {
    std::lock_guard lock(mutex_);
    begun_ = true;
    cancelled = cancelled_;
  }
  if (cancelled) return sessions_->HangUp(session_);
  sessions_->Submit(session_);
}

// The session gives out one event at a time: whoever gets one owns the write.
void ClientStream::Wake() {
  const std::optional<ClientEvent> event = sessions_->Take(session_);
  if (!event) return;
  if (const auto* end = std::get_if<EndEvent>(&*event))
    return call_->End(ToGrpcStatus(end->status));
  grpc::ByteBuffer message = rpc::ToBuffer(ToProto(*event).SerializeAsString());
  const auto* finish = std::get_if<FinishEvent>(&*event);
  if (finish != nullptr && finish->last) return call_->WriteAndFinish(std::move(message));
  call_->Write(std::move(message));
}

void ClientStream::Break() { call_->Break(); }

void ClientStream::OnWriteDone(bool ok) {
  sessions_->WriteDone(session_);
  if (!ok) return sessions_->HangUp(session_);  // Wakes this once more.
  Wake();
}

void ClientStream::OnCancel() {
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (!begun_) return;  // Begin will see it.
  }
  sessions_->HangUp(session_);
}

void ClientStream::OnDone() {
  if (session_) sessions_->Gone(session_);
}

}  // namespace fathom::router
