#include "rpc/server.h"

#include <grpcpp/server.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "common/check.h"
#include "grpc/health/v1/health.pb.h"
#include "grpc/reflection/v1/reflection.pb.h"
#include "rpc/credentials.h"
#include "rpc/health.h"
#include "rpc/reflection.h"
#include "rpc/waiting_calls.h"

namespace fathom::rpc {
namespace {

using grpc::StatusCode;

// One stream of reflection. It answers each question before it reads the next one.
class ReflectionStream final : public CallSink {
 public:
  ReflectionStream(std::shared_ptr<Call> call, const std::vector<std::string>& services,
                   std::atomic<size_t>* open)
      : call_(std::move(call)), services_(services), open_(*open) {}

  void OnMessage(grpc::ByteBuffer message) override {
    call_->Write(ToBuffer(AnswerReflection(Dump(message), services_)));
  }
  void OnWriteDone(bool ok) override {
    if (ok) return call_->Read();
    End();
  }
  void OnMessagesEnd() override { End(); }
  void OnDone() override { open_ -= 1; }

 private:
  // If the call is cancelled, its read or its write fails, which ends here.
  void End() {
    if (!ended_.exchange(true)) call_->End(grpc::Status::OK);
  }

  const std::shared_ptr<Call> call_;
  const std::vector<std::string>& services_;
  std::atomic<size_t>& open_;
  std::atomic<bool> ended_{false};
};

}  // namespace

class Server::Impl final : public grpc::CallbackGenericService, public Call::Owner {
 public:
  explicit Impl(const ServerOptions& options) : options_(options), health_(options.watchers_max) {
    // Links the messages into the program, so that reflection can describe them.
    AddService(grpc::health::v1::HealthCheckRequest::descriptor()->file()->service(0)->full_name());
    AddService(grpc::reflection::v1::ServerReflectionRequest::descriptor()
                   ->file()
                   ->service(0)
                   ->full_name());
    AddMethod("/grpc.health.v1.Health/Check",
              [this](const auto& call, const auto& request) { health_.Check(call, request); });
    AddMethod("/grpc.health.v1.Health/Watch",
              [this](const auto& call, const auto& request) { health_.Watch(call, request); });
    for (const char* method : kReflectionMethods) {
      AddMethod(method, [this](const auto& call, const auto& request) { Reflect(call, request); });
    }
  }

  void AddService(const std::string& service) {
    services_.push_back(service);
    health_.AddService(service);
  }
  void AddMethod(const std::string& path, CallHandler handler) {
    FATHOM_CHECK(methods_.emplace(path, std::move(handler)).second, "{} twice", path);
  }

  absl::Status Start(Listener listener) {
    port_ = listener.port();
    ConnectionLimits limits = options_.connections;
    limits.message_bytes_max = options_.port.message_bytes_max;
    // A quarter more than a client may have that obeys the limit of streams.
    limits.gate.unreported_max = options_.port.streams_per_connection_max * 5 / 4;
    limits.tls = options_.tls.on();
    connections_ = std::make_unique<Connections>(std::move(listener), limits);
    grpc::ServerBuilder builder;
    Apply(options_.port, options_.name, &builder);
    connections_->AddTo(&builder, ServerCredentialsOf(options_.tls));
    builder.RegisterCallbackGenericService(this);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return Unavailable("gRPC cannot serve on port {}", port_);
    connections_->Start([this] { EndLateCalls(); });
    return absl::OkStatus();
  }

  int port() const { return port_; }
  std::vector<std::string> methods() const {
    std::vector<std::string> paths;
    for (const auto& [path, handler] : methods_) paths.push_back(path);
    return paths;
  }
  Health& health() { return health_; }
  ConnectionStats stats() const {
    return connections_ == nullptr ? ConnectionStats() : connections_->stats();
  }

  size_t calls_without_message() const {
    std::lock_guard lock(mutex_);
    return waiting_.size();
  }

  void Stop(int64_t grace_ms) {
    if (server_ == nullptr) return;
    connections_->Stop();
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(grace_ms));
    server_->Wait();
    server_ = nullptr;
  }

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    const std::shared_ptr<Call> call = Call::Make(this, context);
    const int64_t calls = connections_->CallBegan(call->peer());
    if (calls > options_.port.streams_per_connection_max && !options_.connections.of_a_proxy) {
      Refuse(call, fmt::format("this connection has {} calls; the limit is {}", calls,
                               options_.port.streams_per_connection_max));
    } else if (const grpc::Status refused = Guard(call.get()); !refused.ok()) {
      call->Take();
      call->End(refused);
    } else if (!methods_.contains(call->method())) {
      call->Take();
      call->End({StatusCode::UNIMPLEMENTED,
                 fmt::format("this {} has no method {}; is this the port of a router?",
                             options_.name, call->method().substr(0, 200))});
    } else {
      const std::shared_ptr<Call> gives_way = Wait(call);
      if (gives_way != nullptr && gives_way->Take()) {
        gives_way->set_refused();
        gives_way->End(
            {StatusCode::RESOURCE_EXHAUSTED,
             fmt::format("{} calls wait for their message, as many as may; this one is the "
                         "oldest of the connection that has the most",
                         options_.calls_without_message_max)});
      }
      connections_->MessageAwaited(call->peer());
      call->Read();
    }
    return call.get();
  }

  void OnFirstMessage(const std::shared_ptr<Call>& call, grpc::ByteBuffer message) override {
    StopWaiting(call);
    connections_->MessageCame(call->peer(), message.Length());
    if (!call->Take()) return;
    methods_.at(call->method())(call, message);
  }

  void OnNoMessage(const std::shared_ptr<Call>& call) override {
    StopWaiting(call);
    connections_->NoMessageCame(call->peer());
    if (!call->Take()) return;
    call->set_refused();
    call->End({StatusCode::INVALID_ARGUMENT, "the call ended without a message"});
  }

  void OnEnd(const std::shared_ptr<Call>& call, bool abandoned) override {
    connections_->CallEnded(call->peer(), abandoned ? CallEnd::kAbandoned : CallEnd::kAnswered);
  }

 private:
  void Refuse(const std::shared_ptr<Call>& call, const std::string& why) {
    call->Take();
    call->set_refused();
    call->End({StatusCode::RESOURCE_EXHAUSTED, why});
  }

  // Adds a call that waits for its message. Returns the call that must end if too many wait.
  std::shared_ptr<Call> Wait(const std::shared_ptr<Call>& call) {
    std::lock_guard lock(mutex_);
    return waiting_.Add(call);
  }

  void StopWaiting(const std::shared_ptr<Call>& call) {
    std::lock_guard lock(mutex_);
    waiting_.Remove(call.get());
  }

  // Runs on the watching thread.
  void EndLateCalls() {
    const auto limit = std::chrono::milliseconds(options_.message_timeout_ms);
    const auto now = std::chrono::steady_clock::now();
    for (;;) {
      std::shared_ptr<Call> late;
      {
        std::lock_guard lock(mutex_);
        late = waiting_.TakeOlderThan(now - limit);
      }
      if (late == nullptr) return;
      if (!late->Take()) continue;
      late->set_refused();
      late->End({StatusCode::DEADLINE_EXCEEDED,
                 fmt::format("the call's message did not come within {} ms of its headers",
                             options_.message_timeout_ms)});
    }
  }

  void Reflect(const std::shared_ptr<Call>& call, const grpc::ByteBuffer& request) {
    if (reflection_streams_.fetch_add(1) >= options_.reflection_streams_max) {
      reflection_streams_ -= 1;
      return call->End({StatusCode::RESOURCE_EXHAUSTED,
                        fmt::format("this port has {} streams of reflection, as many as may",
                                    options_.reflection_streams_max)});
    }
    const auto stream = std::make_shared<ReflectionStream>(call, services_, &reflection_streams_);
    call->SetSink(stream);
    stream->OnMessage(request);
  }

  // The guard is asked for an unknown method too, so a caller without a key does not learn which
  // methods there are.
  grpc::Status Guard(Call* call) const {
    if (!options_.guard) return grpc::Status::OK;
    return options_.guard(call, methods_.contains(call->method()));
  }

  const ServerOptions options_;
  int port_ = 0;
  Health health_;
  std::vector<std::string> services_;
  std::unordered_map<std::string, CallHandler> methods_;
  std::atomic<size_t> reflection_streams_{0};
  std::unique_ptr<Connections> connections_;
  std::unique_ptr<grpc::Server> server_;

  mutable std::mutex mutex_;  // Guards what follows.
  WaitingCalls<Call> waiting_{options_.calls_without_message_max};
};

Server::Server(const ServerOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Server::~Server() { Stop(0); }

void Server::AddService(const std::string& service) { impl_->AddService(service); }
void Server::AddMethod(const std::string& path, CallHandler handler) {
  impl_->AddMethod(path, std::move(handler));
}
absl::Status Server::Start(Listener listener) { return impl_->Start(std::move(listener)); }
int Server::port() const { return impl_->port(); }
std::vector<std::string> Server::methods() const { return impl_->methods(); }
void Server::SetServing(bool serving) { impl_->health().SetServing(serving); }
void Server::Stop(int64_t grace_ms) { impl_->Stop(grace_ms); }
ConnectionStats Server::stats() const { return impl_->stats(); }
size_t Server::calls_without_message() const { return impl_->calls_without_message(); }

}  // namespace fathom::rpc
