#include "router/frontend/grpc/service.h"

#include <google/protobuf/stubs/logging.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <utility>

#include "common/log.h"
#include "common/reason.h"
#include "common/retry_delay.h"
#include "inference.pb.h"
#include "router/frontend/grpc/client_address.h"
#include "router/frontend/grpc/grpc_stream.h"
#include "router/frontend/grpc/handler.h"
#include "router/frontend/grpc/rpc_error.h"

namespace fathom::router {
namespace {

// Until the call's own deadline, at least 1; 0: it has none.
int64_t TimeLeftMs(const rpc::Call& call) {
  const auto deadline = call.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return 0;
  const auto left = deadline - std::chrono::system_clock::now();
  return std::max<int64_t>(1, std::chrono::duration_cast<std::chrono::milliseconds>(left).count());
}

absl::Status Dropped(WorkDrop why, int64_t retry_after_ms) {
  static std::atomic<uint64_t> refused{0};  // Makes retry delays differ.
  switch (why) {
    case WorkDrop::kFull:
      break;
    case WorkDrop::kCancelled:
      return Cancelled("the call was cancelled, or its deadline passed, before its text's turn");
    case WorkDrop::kStopping:
      return WithReason(
          Unavailable("this router is shutting down; send the request to another one"),
          Reason::kDraining, "", JitteredRetryMs(kDrainingRetryMs, ++refused));
  }
  return WithReason(Exhausted("this router tokenizes as many long texts as it may; try again"),
                    Reason::kTokenizerBusy, "", retry_after_ms);
}

constexpr char kInference[] = "fathom.v1.Inference";
constexpr char kAdmin[] = "fathom.v1.Admin";

}  // namespace

// The methods take raw bytes, so that a broken message is answered by us, with the field, and not
// by gRPC.
class RouterService::Methods {
 public:
  explicit Methods(const Handler* handler) : handler_(handler) {}

  void AddTo(rpc::Server* server) {
    server->AddService(kInference);
    server->AddService(kAdmin);
    AddStream(server, "Generate", &Handler::Generate);
    AddStream(server, "Chat", &Handler::Chat);
    server->AddMethod(
        Path(kInference, "Resume"),
        [this](const CallPtr& call, const grpc::ByteBuffer& request) { Resume(call, request); });
    AddUnary<v1::TokenizeResponse>(server, kInference, "Tokenize", &Handler::Tokenize);
    AddUnary<v1::DetokenizeResponse>(server, kInference, "Detokenize", &Handler::Detokenize);
    AddUnary<v1::Model>(server, kInference, "GetModel", &Handler::GetModel);
    AddUnary<v1::Limits>(server, kInference, "GetLimits", &Handler::GetLimits);
    AddUnary<v1::ClusterStatus>(server, kAdmin, "GetStatus", &Handler::GetStatus);
  }

 private:
  using CallPtr = std::shared_ptr<rpc::Call>;
  using Admission = absl::StatusOr<AdmittedRequest> (Handler::*)(const std::string&,
                                                                 const CallInfo&) const;
  template <class Response>
  using Answer = absl::Status (Handler::*)(const std::string&, const CallInfo&, Response*) const;
  using End = std::function<void(const absl::Status&)>;

  static std::string Path(const char* service, const char* method) {
    return fmt::format("/{}/{}", service, method);
  }

  void AddStream(rpc::Server* server, const char* method, Admission admit) {
    server->AddMethod(Path(kInference, method),
                      [this, admit](const CallPtr& call, const grpc::ByteBuffer& request) {
                        Stream(call, request, admit);
                      });
  }
  template <class Response>
  void AddUnary(rpc::Server* server, const char* service, const char* method,
                Answer<Response> answer) {
    server->AddMethod(Path(service, method),
                      [this, answer](const CallPtr& call, const grpc::ByteBuffer& request) {
                        Unary(call, request, answer);
                      });
  }

  void Refuse(const std::shared_ptr<GrpcStream>& stream, const absl::Status& status) {
    handler_->parts().observer->Refused(status.code());
    stream->Refuse(status);
  }

  void Launch(const std::shared_ptr<GrpcStream>& stream,
              absl::StatusOr<std::shared_ptr<Session>> session) {
    if (!session.ok()) return Refuse(stream, session.status());
    stream->Begin(*std::move(session));
  }

  // Short work at once, long work on the pool, which may drop it.
  void Run(const CallPtr& call, size_t bytes, std::function<void(const CallInfo&)> work,
           End refuse) {
    CallInfo info{.time_left_ms = TimeLeftMs(*call),
                  .cancelled = [call] { return call->cancelled(); }};
    if (bytes < handler_->parts().inline_bytes_max) return work(info);
    const auto came = std::chrono::steady_clock::now();
    handler_->parts().pool->Run(
        {.client = handler_->parts().behind_proxy
                       ? ClientBehindProxy(call->peer(), call->forwarded_for())
                       : ClientOfPeer(call->peer()),
         .cancelled = info.cancelled,
         .run =
             [came, info, work = std::move(work)]() mutable {
               info.waited_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                                    std::chrono::steady_clock::now() - came)
                                    .count();
               work(info);
             },
         .drop = [refuse = std::move(refuse)](WorkDrop why,
                                              int64_t ms) { refuse(Dropped(why, ms)); }});
  }

  void Stream(const CallPtr& call, const grpc::ByteBuffer& request, Admission admit) {
    const auto stream = GrpcStream::Make(call, handler_->parts().sessions);
    // g++ 12 with UBSan loses `this` in (handler_->*admit)(...) inside a lambda: std::invoke keeps
    // it.
    auto work = [this, stream, bytes = rpc::Dump(request), admit](const CallInfo& info) {
      absl::StatusOr<AdmittedRequest> admitted = std::invoke(admit, handler_, bytes, info);
      if (!admitted.ok()) return Refuse(stream, admitted.status());
      Launch(stream, handler_->parts().sessions->Create(*std::move(admitted), stream));
    };
    Run(call, request.Length(), std::move(work),
        [this, stream](const absl::Status& status) { Refuse(stream, status); });
  }

  void Resume(const CallPtr& call, const grpc::ByteBuffer& request) {
    const auto stream = GrpcStream::Make(call, handler_->parts().sessions);
    auto point = handler_->Resume(rpc::Dump(request));
    if (!point.ok()) return Refuse(stream, point.status());
    Launch(stream, handler_->parts().sessions->Resume(point->key, std::move(point->next_positions),
                                                      stream));
  }

  template <class Response>
  void Unary(const CallPtr& call, const grpc::ByteBuffer& request, Answer<Response> answer) {
    auto work = [this, call, bytes = rpc::Dump(request), answer](const CallInfo& info) {
      Response message;
      const absl::Status status = std::invoke(answer, handler_, bytes, info, &message);
      if (!status.ok()) return call->End(ToGrpcStatus(status));
      call->Reply(rpc::ToBuffer(message.SerializeAsString()));
    };
    Run(call, request.Length(), std::move(work),
        [call](const absl::Status& status) { call->End(ToGrpcStatus(status)); });
  }

  const Handler* const handler_;
};

RouterService::RouterService(ServiceParts parts)
    : handler_(std::make_unique<Handler>(std::move(parts))),
      methods_(std::make_unique<Methods>(handler_.get())) {}

RouterService::~RouterService() { Stop(); }

absl::Status RouterService::Start(Listener listener, const rpc::ServerOptions& options) {
  google::protobuf::SetLogHandler(nullptr);  // A client's bad UTF-8 is answered, not logged.
  server_ = std::make_unique<rpc::Server>(options);
  methods_->AddTo(server_.get());
  return server_->Start(std::move(listener));
}

rpc::ConnectionStats RouterService::connections() const { return server_->stats(); }

void RouterService::UpdateHealth() {
  const absl::Status ready = handler_->Ready();
  if (ready.ok() != serving_) {
    serving_ = ready.ok();
    LogInfo("{}", serving_ ? "ready: a request would be answered"
                           : fmt::format("not ready: {}", Message(ready)));
  }
  server_->SetServing(serving_);
}

void RouterService::Drain() {
  handler_->set_draining();
  UpdateHealth();
}

void RouterService::Stop() {
  if (server_ == nullptr) return;
  server_->Stop(0);
  server_ = nullptr;
}

}  // namespace fathom::router
