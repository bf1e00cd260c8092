#include "router/frontend/grpc/stream_reactor.h"

#include <utility>

#include "inference.grpc.pb.h"
#include "router/frontend/grpc/request_proto.h"
#include "router/frontend/grpc/rpc_error.h"

namespace fathom::router {

std::shared_ptr<StreamReactor> StreamReactor::Make(grpc::CallbackServerContext* context,
                                                   Sessions* sessions) {
  std::shared_ptr<StreamReactor> reactor(new StreamReactor(context, sessions));
  reactor->self_ = reactor;
  return reactor;
}

void StreamReactor::Refuse(const absl::Status& status) { Finish(ToGrpcStatus(status)); }

void StreamReactor::Begin(std::shared_ptr<Session> session) {
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
void StreamReactor::Wake() {
  const std::optional<ClientEvent> event = sessions_->Take(session_);
  if (!event) return;
  if (const auto* end = std::get_if<EndEvent>(&*event)) return Finish(ToGrpcStatus(end->status));
  bool own_buffer = false;
  const v1::GenerateResponse response = ToProto(*event);
  buffer_.Clear();
  grpc::SerializationTraits<v1::GenerateResponse>::Serialize(response, &buffer_, &own_buffer);
  const auto* finish = std::get_if<FinishEvent>(&*event);
  if (finish != nullptr && finish->last) {
    return StartWriteAndFinish(&buffer_, grpc::WriteOptions(), grpc::Status::OK);
  }
  StartWrite(&buffer_);
}

void StreamReactor::Break() {
  std::lock_guard lock(context_mutex_);
  if (context_ != nullptr) context_->TryCancel();
}

void StreamReactor::OnWriteDone(bool ok) {
  sessions_->WriteDone(session_);
  if (!ok) return sessions_->HangUp(session_);  // Wakes this once more.
  Wake();
}

void StreamReactor::OnCancel() {
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (!begun_) return;  // Begin will see it.
  }
  sessions_->HangUp(session_);
}

void StreamReactor::OnDone() {
  const std::shared_ptr<StreamReactor> self = std::move(self_);
  {
    std::lock_guard lock(context_mutex_);
    context_ = nullptr;
  }
  if (session_) sessions_->Gone(session_);
}

}  // namespace fathom::router
