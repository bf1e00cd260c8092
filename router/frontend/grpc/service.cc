#include "router/frontend/grpc/service.h"

#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "inference.pb.h"
#include "router/frontend/grpc/answer_proto.h"
#include "router/frontend/grpc/grpc_stream.h"
#include "router/frontend/grpc/parse_message.h"
#include "router/frontend/grpc/request_proto.h"
#include "router/frontend/grpc/rpc_error.h"

namespace fathom::router {
namespace {

using CallPtr = std::shared_ptr<rpc::Call>;

constexpr char kInference[] = "fathom.v1.Inference";
constexpr char kAdmin[] = "fathom.v1.Admin";

std::string Path(const char* service, const char* method) {
  return fmt::format("/{}/{}", service, method);
}

CallContext ContextOf(const CallPtr& call) {
  using std::chrono::duration_cast;
  const auto now = std::chrono::system_clock::now();
  CallContext context{
      .tenant = call->tenant().empty() ? kDefaultTenant : call->tenant(),
      .peer = call->peer(),
      .forwarded_for = call->forwarded_for(),
      .trace = ParseTraceparent(call->traceparent()),
      .received_unix_s = duration_cast<std::chrono::seconds>(now.time_since_epoch()).count(),
      .cancelled = [call] { return call->cancelled(); }};
  if (call->deadline() != std::chrono::system_clock::time_point::max()) {
    const auto left = duration_cast<std::chrono::milliseconds>(call->deadline() - now);
    context.deadline_ms = std::max<int64_t>(1, left.count());
  }
  return context;
}

// The methods get bytes, so the router itself answers an invalid message and can name the field.
// gRPC would answer without it.
template <class Message>
absl::StatusOr<Message> Parse(const std::string& bytes) {
  Message message;
  FATHOM_RETURN_IF_ERROR(ParseMessage(bytes, &message));
  return message;
}

template <class Message>
void AddStream(rpc::Server* server, const InferenceApi* api, const char* method) {
  server->AddMethod(Path(kInference, method), [api](const CallPtr& call,
                                                    const grpc::ByteBuffer& request) {
    const auto read = [bytes = rpc::Dump(request)]() -> absl::StatusOr<GenerateRequest> {
      FATHOM_ASSIGN_OR_RETURN(Message message, Parse<Message>(bytes));
      return FromProto(std::move(message));
    };
    api->Generate(ContextOf(call), request.Length(), read, GrpcStream::Make(call, api->sessions()));
  });
}

void AddResume(rpc::Server* server, const InferenceApi* api) {
  server->AddMethod(
      Path(kInference, "Resume"), [api](const CallPtr& call, const grpc::ByteBuffer& request) {
        const auto read = [&]() -> absl::StatusOr<ResumeRequest> {
          FATHOM_ASSIGN_OR_RETURN(const auto message, Parse<v1::ResumeRequest>(rpc::Dump(request)));
          return FromProto(message);
        };
        api->Resume(ContextOf(call), read(), GrpcStream::Make(call, api->sessions()));
      });
}

// `ask` gets the CallContext and the message and returns the API's answer as a StatusOr.
template <class Message, class Ask>
void AddUnary(rpc::Server* server, const InferenceApi* api, const std::string& path, Ask ask) {
  server->AddMethod(path, [api, ask](const CallPtr& call, const grpc::ByteBuffer& request) {
    const auto end = [call](const absl::Status& status) { call->End(ToGrpcStatus(status)); };
    const CallContext context = ContextOf(call);
    const auto work = [call, context, end, ask, bytes = rpc::Dump(request)] {
      absl::StatusOr<Message> message = Parse<Message>(bytes);
      if (!message.ok()) return end(message.status());
      const auto answer = ask(context, *std::move(message));
      if (!answer.ok()) return end(answer.status());
      call->Reply(rpc::ToBuffer(ToProto(*answer).SerializeAsString()));
    };
    api->Run(context, request.Length(), work, end);
  });
}

void AddExplain(rpc::Server* server, const InferenceApi* api) {
  server->AddMethod(
      Path(kInference, "Explain"), [api](const CallPtr& call, const grpc::ByteBuffer& request) {
        const auto message = Parse<v1::ExplainRequest>(rpc::Dump(request));
        if (!message.ok()) return call->End(ToGrpcStatus(message.status()));
        api->Explain(ContextOf(call), message->request_id(),
                     [call](const absl::StatusOr<RequestReport>& answer) {
                       if (!answer.ok()) return call->End(ToGrpcStatus(answer.status()));
                       call->Reply(rpc::ToBuffer(ToProto(*answer).SerializeAsString()));
                     });
      });
}

rpc::CallGuard GuardOf(const AccessControl* access) {
  return [access](rpc::Call* call, bool known) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    auto tenant = access->Admit({call->authorization(), call->api_key()},
                                known ? call->method() : std::string_view(),
                                std::chrono::duration_cast<std::chrono::seconds>(now).count());
    if (!tenant.ok()) return ToGrpcStatus(tenant.status());
    call->set_tenant(*std::move(tenant));
    return grpc::Status::OK;
  };
}

void AddMethods(rpc::Server* server, const InferenceApi* api) {
  server->AddService(kInference);
  server->AddService(kAdmin);
  AddStream<v1::GenerateRequest>(server, api, "Generate");
  AddStream<v1::ChatRequest>(server, api, "Chat");
  AddResume(server, api);
  AddExplain(server, api);
  AddUnary<v1::ValidateRequest>(server, api, Path(kInference, "Validate"),
                                [api](const CallContext& call, v1::ValidateRequest&& message) {
                                  return api->Validate(call, FromProto(std::move(message)));
                                });
  AddUnary<v1::TokenizeRequest>(server, api, Path(kInference, "Tokenize"),
                                [api](const CallContext& call, v1::TokenizeRequest&& message) {
                                  return api->Tokenize(call, FromProto(std::move(message)));
                                });
  AddUnary<v1::DetokenizeRequest>(server, api, Path(kInference, "Detokenize"),
                                  [api](const CallContext&, const v1::DetokenizeRequest& message) {
                                    return api->Detokenize(FromProto(message));
                                  });
  AddUnary<v1::GetModelRequest>(server, api, Path(kInference, "GetModel"),
                                [api](const CallContext&, const v1::GetModelRequest& message) {
                                  return api->GetModel(message.model());
                                });
  AddUnary<v1::GetLimitsRequest>(server, api, Path(kInference, "GetLimits"),
                                 [api](const CallContext&, const v1::GetLimitsRequest&) {
                                   return absl::StatusOr<std::vector<FieldLimit>>(api->GetLimits());
                                 });
  AddUnary<v1::GetStatusRequest>(server, api, Path(kAdmin, "GetStatus"),
                                 [api](const CallContext&, const v1::GetStatusRequest&) {
                                   return absl::StatusOr<StatusAnswer>(api->GetStatus());
                                 });
}

}  // namespace

absl::Status RouterService::Start(Listener listener, const rpc::ServerOptions& options) {
  google::protobuf::SetLogHandler(nullptr);  // A client's bad UTF-8 is answered, not logged.
  rpc::ServerOptions guarded = options;
  if (access_ != nullptr) guarded.guard = GuardOf(access_);
  server_ = std::make_unique<rpc::Server>(guarded);
  AddMethods(server_.get(), api_);
  return server_->Start(std::move(listener));
}

void RouterService::Stop() {
  if (server_ == nullptr) return;
  server_->Stop(0);
  server_ = nullptr;
}

}  // namespace fathom::router
