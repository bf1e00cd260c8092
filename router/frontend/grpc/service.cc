#include "router/frontend/grpc/service.h"

#include <arpa/inet.h>
#include <google/protobuf/stubs/logging.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <functional>
#include <utility>
#include <vector>

#include "common/log.h"
#include "inference.grpc.pb.h"
#include "router/frontend/grpc/handler.h"
#include "router/frontend/grpc/rpc_error.h"
#include "router/frontend/grpc/stream_reactor.h"

namespace fathom::router {
namespace {

using Bytes = grpc::ByteBuffer;
using Context = grpc::CallbackServerContext;

std::string Dump(const Bytes& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  bytes.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices)
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

// Until the call's own deadline, at least 1; 0: it has none.
int64_t TimeLeftMs(const Context& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return 0;
  const auto left = deadline - std::chrono::system_clock::now();
  return std::max<int64_t>(1, std::chrono::duration_cast<std::chrono::milliseconds>(left).count());
}

absl::Status Dropped(WorkDrop why) {
  switch (why) {
    case WorkDrop::kFull:
      break;
    case WorkDrop::kCancelled:
      return Cancelled("the call was cancelled, or its deadline passed, before its text's turn");
    case WorkDrop::kStopping:
      return WithDetail(
          Unavailable("this router is shutting down; send the request to another one"),
          {.reason = "DRAINING", .field = {}, .retry_after_ms = 1000});
  }
  return WithDetail(Exhausted("this router tokenizes as many long texts as it may; try again"),
                    {.reason = "TOKENIZER_BUSY", .field = {}, .retry_after_ms = 200});
}

// Who shares tokenizer time: the peer's address without its port, of IPv6 the /64 network (one host
// has a whole one). "ipv4:1.2.3.4:5678", "ipv6:%5B::1%5D:5678", "unix:..." as gRPC spells them.
std::string ClientOf(const Context& context) {
  std::string peer = context.peer();
  if (!peer.starts_with("ipv4:") && !peer.starts_with("ipv6:")) return peer;
  peer.resize(peer.rfind(':'));
  const size_t open = peer.find("%5B"), bracket = peer.find('[');
  const size_t begin = open != peer.npos      ? open + 3
                       : bracket != peer.npos ? bracket + 1
                                              : peer.npos;
  if (begin == peer.npos) return peer;
  in6_addr address;
  const std::string host = peer.substr(begin, peer.find_first_of("%]", begin) - begin);
  if (inet_pton(AF_INET6, host.c_str(), &address) != 1) return peer;
  return "ipv6/64:" + std::string(reinterpret_cast<const char*>(address.s6_addr), 8);
}

template <class Message>
void Serialize(const Message& message, Bytes* buffer) {
  bool own_buffer = false;
  grpc::SerializationTraits<Message>::Serialize(message, buffer, &own_buffer);
}

using RawInference = v1::Inference::WithRawCallbackMethod_Generate<
    v1::Inference::WithRawCallbackMethod_Chat<v1::Inference::WithRawCallbackMethod_Tokenize<
        v1::Inference::WithRawCallbackMethod_Detokenize<v1::Inference::WithRawCallbackMethod_Resume<
            v1::Inference::WithRawCallbackMethod_GetModel<
                v1::Inference::WithRawCallbackMethod_GetLimits<v1::Inference::Service>>>>>>>;

}  // namespace

// Methods take raw bytes, so that a broken message is answered by us, with the field, and not by
// gRPC.
class RouterService::Inference final : public RawInference {
 public:
  explicit Inference(const Handler* handler) : handler_(handler) {}

  grpc::ServerWriteReactor<Bytes>* Generate(Context* context, const Bytes* request) override {
    return Stream(context, *request, &Handler::Generate);
  }
  grpc::ServerWriteReactor<Bytes>* Chat(Context* context, const Bytes* request) override {
    return Stream(context, *request, &Handler::Chat);
  }
  grpc::ServerWriteReactor<Bytes>* Resume(Context* context, const Bytes* request) override {
    const auto reactor = StreamReactor::Make(context, handler_->parts().sessions);
    auto point = handler_->Resume(Dump(*request));
    if (!point.ok()) {
      Refuse(reactor, point.status());
    } else {
      Launch(reactor, handler_->parts().sessions->Resume(
                          point->key, std::move(point->next_positions), reactor));
    }
    return reactor.get();
  }
  grpc::ServerUnaryReactor* Tokenize(Context* context, const Bytes* request,
                                     Bytes* response) override {
    return Unary<v1::TokenizeResponse>(context, *request, response, &Handler::Tokenize);
  }
  grpc::ServerUnaryReactor* Detokenize(Context* context, const Bytes* request,
                                       Bytes* response) override {
    return Unary<v1::DetokenizeResponse>(context, *request, response, &Handler::Detokenize);
  }
  grpc::ServerUnaryReactor* GetModel(Context* context, const Bytes* request,
                                     Bytes* response) override {
    return Unary<v1::Model>(context, *request, response, &Handler::GetModel);
  }
  grpc::ServerUnaryReactor* GetLimits(Context* context, const Bytes* request,
                                      Bytes* response) override {
    return Unary<v1::Limits>(context, *request, response, &Handler::GetLimits);
  }

 private:
  using Admission = absl::StatusOr<AdmittedRequest> (Handler::*)(const std::string&,
                                                                 const CallInfo&) const;
  using Finish = std::function<void(const absl::Status&)>;

  void Refuse(const std::shared_ptr<StreamReactor>& reactor, const absl::Status& status) {
    handler_->parts().observer->Refused(status.code());
    reactor->Refuse(status);
  }

  void Launch(const std::shared_ptr<StreamReactor>& reactor,
              absl::StatusOr<std::shared_ptr<Session>> session) {
    if (!session.ok()) return Refuse(reactor, session.status());
    reactor->Begin(*std::move(session));
  }

  // Short work at once, long work on the pool, which may drop it. The call has not ended before one
  // of `work` and `refuse` was called, so its context may be asked until then.
  void Run(Context* context, size_t bytes, std::function<void(const CallInfo&)> work,
           Finish refuse) {
    CallInfo call{.time_left_ms = TimeLeftMs(*context),
                  .cancelled = [context] { return context->IsCancelled(); }};
    if (bytes < handler_->parts().inline_bytes_max) return work(call);
    const auto came = std::chrono::steady_clock::now();
    handler_->parts().pool->Run(
        {.client = ClientOf(*context),
         .cancelled = call.cancelled,
         .run =
             [came, call, work = std::move(work)]() mutable {
               call.waited_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                                    std::chrono::steady_clock::now() - came)
                                    .count();
               work(call);
             },
         .drop = [refuse = std::move(refuse)](WorkDrop why) { refuse(Dropped(why)); }});
  }

  grpc::ServerWriteReactor<Bytes>* Stream(Context* context, const Bytes& request, Admission admit) {
    const auto reactor = StreamReactor::Make(context, handler_->parts().sessions);
    // g++ 12 with UBSan loses `this` in (handler_->*admit)(...) inside a lambda: std::invoke keeps
    // it.
    auto work = [this, reactor, bytes = Dump(request), admit](const CallInfo& call) {
      absl::StatusOr<AdmittedRequest> admitted = std::invoke(admit, handler_, bytes, call);
      if (!admitted.ok()) return Refuse(reactor, admitted.status());
      Launch(reactor, handler_->parts().sessions->Create(*std::move(admitted), reactor));
    };
    Run(context, request.Length(), std::move(work),
        [this, reactor](const absl::Status& status) { Refuse(reactor, status); });
    return reactor.get();
  }

  template <class Response>
  grpc::ServerUnaryReactor* Unary(Context* context, const Bytes& request, Bytes* response,
                                  absl::Status (Handler::*method)(const std::string&,
                                                                  const CallInfo&, Response*)
                                      const) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    auto work = [this, reactor, bytes = Dump(request), response, method](const CallInfo& call) {
      Response message;
      const absl::Status status = std::invoke(method, handler_, bytes, call, &message);
      if (status.ok()) Serialize(message, response);
      reactor->Finish(ToGrpcStatus(status));
    };
    Run(context, request.Length(), std::move(work),
        [reactor](const absl::Status& status) { reactor->Finish(ToGrpcStatus(status)); });
    return reactor;
  }

  const Handler* const handler_;
};

class RouterService::Admin final : public v1::Admin::CallbackService {
 public:
  explicit Admin(const Handler* handler) : handler_(handler) {}
  grpc::ServerUnaryReactor* GetStatus(Context* context, const v1::GetStatusRequest*,
                                      v1::ClusterStatus* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(handler_->GetStatus(response)));
    return reactor;
  }

 private:
  const Handler* const handler_;
};

RouterService::RouterService(ServiceParts parts)
    : handler_(std::make_unique<Handler>(std::move(parts))),
      inference_(std::make_unique<Inference>(handler_.get())),
      admin_(std::make_unique<Admin>(handler_.get())) {}

RouterService::~RouterService() { Stop(); }

absl::StatusOr<int> RouterService::Start(const std::string& host, int port,
                                         const ServerLimits& limits) {
  google::protobuf::SetLogHandler(nullptr);  // A client's bad UTF-8 is answered, not logged.
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  grpc::ResourceQuota quota("fathom-router");
  quota.Resize(limits.memory_bytes_max);
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(limits.message_bytes_max);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, limits.streams_per_connection_max);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, limits.metadata_bytes_max);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  int bound = 0;
  const std::string address = fmt::format("{}:{}", host, port);
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &bound);
  builder.RegisterService(inference_.get());
  builder.RegisterService(admin_.get());
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || bound == 0) {
    return Unavailable(
        "cannot listen on {}; another process has the port, or the host is not one of this "
        "machine; "
        "choose another with --grpc-port or --host",
        address);
  }
  server_->GetHealthCheckService()->SetServingStatus(false);
  return bound;
}

void RouterService::UpdateHealth() {
  const absl::Status ready = handler_->Ready();
  if (ready.ok() != serving_) {
    serving_ = ready.ok();
    LogInfo("{}", serving_ ? "ready: a request would be answered"
                           : fmt::format("not ready: {}", Message(ready)));
  }
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus(serving_);
  health->SetServingStatus("fathom.v1.Inference", serving_);
}

void RouterService::Drain() {
  handler_->set_draining();
  UpdateHealth();
}

void RouterService::Stop() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  server_ = nullptr;
}

}  // namespace fathom::router
