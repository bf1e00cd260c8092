#include "router/frontend/grpc/grpc_stream.h"

#include "inference.pb.h"
#include "router/frontend/grpc/answer_proto.h"
#include "router/frontend/grpc/rpc_error.h"

namespace fathom::router {

std::shared_ptr<GrpcStream> GrpcStream::Make(std::shared_ptr<rpc::Call> call, Sessions* sessions) {
  std::shared_ptr<GrpcStream> stream(new GrpcStream(std::move(call), sessions));
  stream->call_->SetSink(stream);
  return stream;
}

void GrpcStream::Write(const ClientEvent& event) {
  if (const auto* end = std::get_if<EndEvent>(&event)) return call_->End(ToGrpcStatus(end->status));
  grpc::ByteBuffer message = rpc::ToBuffer(ToProto(event).SerializeAsString());
  const auto* finish = std::get_if<FinishEvent>(&event);
  if (finish != nullptr && finish->last) return call_->WriteAndFinish(std::move(message));
  call_->Write(std::move(message));
}

}  // namespace fathom::router
