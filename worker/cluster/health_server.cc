#include "worker/cluster/health_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <utility>

#include "cluster/worker_wire.h"
#include "grpc/health/v1/health.pb.h"
#include "worker.grpc.pb.h"

namespace fathom::worker {

namespace {

constexpr int32_t kTraceTimeoutMsMax = 3'600'000;

// A call holds one of the server's threads while it waits; the recorder refuses a second one.
class ToolsService final : public v1::WorkerTools::Service {
 public:
  explicit ToolsService(StepRecorder* recorder) : recorder_(recorder) {}

  grpc::Status Trace(grpc::ServerContext* context, const v1::TraceRequest* request,
                     v1::TraceReply* reply) override {
    if (request->timeout_ms() < 1 || request->timeout_ms() > kTraceTimeoutMsMax) {
      return {
          grpc::StatusCode::INVALID_ARGUMENT,
          fmt::format("timeout_ms {}; it is 1 to {}", request->timeout_ms(), kTraceTimeoutMsMax)};
    }
    const auto steps =
        recorder_->Capture(request->steps(), std::chrono::milliseconds(request->timeout_ms()),
                           [&] { return context->IsCancelled(); });
    if (!steps.ok()) {
      return {static_cast<grpc::StatusCode>(steps.status().code()),
              std::string(Message(steps.status()))};
    }
    for (const StepTrace& step : *steps) ToWire(step, reply->add_steps());
    return grpc::Status::OK;
  }

  void Close() { recorder_->Close(); }

 private:
  StepRecorder* const recorder_;
};

}  // namespace

struct HealthServer::Impl {
  explicit Impl(StepRecorder* recorder) : tools(recorder) {}

  int port = 0;
  ToolsService tools;  // Outlives the server.
  std::unique_ptr<grpc::Server> server;
};

HealthServer::HealthServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<HealthServer>> HealthServer::Start(const std::string& host, int port,
                                                                  StepRecorder* recorder) {
  // Links the messages in, so that reflection can describe the service.
  grpc::health::v1::HealthCheckRequest::descriptor();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  auto impl = std::make_unique<Impl>(recorder);
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  builder.AddListeningPort(host + ":" + std::to_string(port), grpc::InsecureServerCredentials(),
                           &impl->port);
  builder.RegisterService(&impl->tools);
  impl->server = builder.BuildAndStart();
  if (!impl->server || impl->port == 0) {
    return Unavailable("--port {}: cannot listen on {}; is another process there?", port, host);
  }
  impl->server->GetHealthCheckService()->SetServingStatus(false);
  return std::unique_ptr<HealthServer>(new HealthServer(std::move(impl)));
}

HealthServer::~HealthServer() {
  impl_->tools.Close();
  impl_->server->GetHealthCheckService()->Shutdown();
  impl_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
}

int HealthServer::port() const { return impl_->port; }

void HealthServer::SetServing(bool serving) {
  impl_->server->GetHealthCheckService()->SetServingStatus(serving);
}

}  // namespace fathom::worker
