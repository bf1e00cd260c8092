#include "worker/cluster/health_server.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

#include "cluster/worker_wire.h"
#include "common/clock.h"
#include "worker.pb.h"

namespace fathom::worker {

namespace {

constexpr int32_t kTraceTimeoutMsMax = 3'600'000;
constexpr int64_t kStopGraceMs = 200;

grpc::Status ToGrpc(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), std::string(Message(status))};
}

// WorkerTools.Trace. Capture of the recorder blocks, so a Trace has a thread. A second call is
// refused before it gets a thread.
class Tools {
 public:
  explicit Tools(StepRecorder* recorder) : recorder_(recorder) {}
  ~Tools() { Close(); }

  void Trace(const std::shared_ptr<rpc::Call>& call, const grpc::ByteBuffer& bytes) {
    v1::TraceRequest request;
    if (!request.ParseFromString(rpc::Dump(bytes))) {
      return call->End({grpc::StatusCode::INVALID_ARGUMENT, "not a TraceRequest"});
    }
    if (request.timeout_ms() < 1 || request.timeout_ms() > kTraceTimeoutMsMax) {
      return call->End(
          {grpc::StatusCode::INVALID_ARGUMENT,
           fmt::format("timeout_ms {}; it is 1 to {}", request.timeout_ms(), kTraceTimeoutMsMax)});
    }
    std::lock_guard lock(mutex_);
    if (busy_) {
      return call->End({grpc::StatusCode::RESOURCE_EXHAUSTED,
                        "another trace is under way on this worker; try again when it is done"});
    }
    if (thread_.joinable()) thread_.join();  // The thread has set busy_ to false, so it ends now.
    busy_ = true;
    thread_ = std::thread([this, call, request] { Capture(call, request); });
  }

  void Close() {
    recorder_->Close();
    std::thread last;
    {
      std::lock_guard lock(mutex_);
      busy_ = closed_ = true;
      last = std::move(thread_);
    }
    if (last.joinable()) last.join();
  }

 private:
  void Capture(const std::shared_ptr<rpc::Call>& call, const v1::TraceRequest& request) {
    const auto steps =
        recorder_->Capture(request.steps(), std::chrono::milliseconds(request.timeout_ms()),
                           [&] { return call->cancelled(); });
    {
      std::lock_guard lock(mutex_);
      if (!closed_) busy_ = false;
    }
    if (!steps.ok()) return call->End(ToGrpc(steps.status()));
    v1::TraceReply reply;
    for (const StepTrace& step : *steps) ToWire(step, reply.add_steps());
    call->Reply(rpc::ToBuffer(reply.SerializeAsString()));
  }

  StepRecorder* const recorder_;
  std::mutex mutex_;  // Guards what follows.
  bool busy_ = false;
  bool closed_ = false;
  std::thread thread_;  // The thread of the last Trace.
};

}  // namespace

struct HealthServer::Impl {
  Impl(const rpc::ServerOptions& options, StepRecorder* recorder)
      : tools(recorder), server(options) {}

  Tools tools;  // Outlives the server.
  rpc::Server server;
};

HealthServer::HealthServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

namespace {

grpc::Status OnlyOperators(const rpc::Call& call) {
  if (!call.method().starts_with("/fathom.worker.v1.")) return grpc::Status::OK;
  const auto& names = call.peer_names();
  if (std::ranges::find(names, kOperatorName) != names.end()) return grpc::Status::OK;
  return {grpc::StatusCode::PERMISSION_DENIED,
          fmt::format("{} is for operators: the certificate needs the DNS name {} (fathom certs "
                      "makes it)",
                      call.method(), kOperatorName)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<HealthServer>> HealthServer::Start(Listener listener,
                                                                  const TlsFiles& tls,
                                                                  StepRecorder* recorder) {
  rpc::ServerOptions options{.name = "worker"};
  options.tls = tls;
  if (tls.on()) options.guard = [](rpc::Call* call, bool) { return OnlyOperators(*call); };
  auto impl = std::make_unique<Impl>(options, recorder);
  impl->server.AddService("fathom.worker.v1.WorkerTools");
  impl->server.AddMethod("/fathom.worker.v1.WorkerTools/Trace",
                         [tools = &impl->tools](const auto& call, const auto& request) {
                           tools->Trace(call, request);
                         });
  impl->server.AddMethod("/fathom.worker.v1.WorkerTools/Clock", [](const auto& call, const auto&) {
    v1::ClockReply reply;
    reply.set_now_us(RealClock().Now());  // The clock of the engine's step times.
    call->Reply(rpc::ToBuffer(reply.SerializeAsString()));
  });
  FATHOM_RETURN_IF_ERROR(impl->server.Start(std::move(listener)));
  return std::unique_ptr<HealthServer>(new HealthServer(std::move(impl)));
}

HealthServer::~HealthServer() {
  impl_->server.SetServing(false);
  impl_->tools.Close();
  impl_->server.Stop(kStopGraceMs);
}

int HealthServer::port() const { return impl_->server.port(); }

void HealthServer::SetServing(bool serving) { impl_->server.SetServing(serving); }

}  // namespace fathom::worker
