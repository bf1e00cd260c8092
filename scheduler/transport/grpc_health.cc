#include "scheduler/transport/grpc_health.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/async_unary_call.h>

#include <unordered_map>
#include <utility>

#include "grpc/health/v1/health.grpc.pb.h"
#include "scheduler/transport/completion.h"

namespace fathom::scheduler {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr size_t kWatchersMax = 256;

}  // namespace

class GrpcHealth::Impl {
 public:
  explicit Impl(std::string served) : name(std::move(served)) {}

  class Check;
  class Watch;

  HealthCheckResponse::ServingStatus StatusOf(const std::string& asked) const {
    if (!asked.empty() && asked != name) return HealthCheckResponse::SERVICE_UNKNOWN;
    return serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
  }

  // Owns the calls that wait or run. A call removes itself when it ends.
  template <class T>
  void Accept() {
    auto call = std::make_unique<T>(this);
    T* raw = call.get();
    calls.emplace(raw, std::move(call));
    raw->Accept();
  }

  const std::string name;
  Health::AsyncService service;
  grpc::ServerCompletionQueue* queue = nullptr;
  bool serving = true;
  std::unordered_map<Completion*, std::unique_ptr<Completion>> calls;
  std::unordered_map<Completion*, Watch*> watchers;
};

// One unary call: it is accepted, answered and removed.
class GrpcHealth::Impl::Check final : public Completion {
 public:
  explicit Check(Impl* impl) : impl_(*impl) {}

  void Accept() {
    impl_.service.RequestCheck(&context_, &request_, &answer_, impl_.queue, impl_.queue, this);
  }

  void Done(bool ok) override {
    if (ok && !answered_) {
      answered_ = true;
      impl_.Accept<Check>();
      HealthCheckResponse response;
      response.set_status(impl_.StatusOf(request_.service()));
      if (response.status() != HealthCheckResponse::SERVICE_UNKNOWN) {
        return answer_.Finish(response, grpc::Status::OK, this);
      }
      return answer_.FinishWithError({grpc::StatusCode::NOT_FOUND, "unknown service"}, this);
    }
    impl_.calls.erase(this);
  }

 private:
  Impl& impl_;
  grpc::ServerContext context_;
  HealthCheckRequest request_;
  grpc::ServerAsyncResponseWriter<HealthCheckResponse> answer_{&context_};
  bool answered_ = false;
};

// One watching client: it gets the present status, then each change, until it disconnects.
class GrpcHealth::Impl::Watch final : public Completion {
 public:
  explicit Watch(Impl* impl) : impl_(*impl) {}

  void Accept() {
    context_.AsyncNotifyWhenDone(&gone_);
    impl_.service.RequestWatch(&context_, &request_, &writer_, impl_.queue, impl_.queue, this);
  }

  void Done(bool ok) override {
    busy_ = false;
    if (!accepted_ && !ok) return Remove();  // No call was accepted, so none ends.
    if (is_gone_) return Remove();
    if (!accepted_) {
      accepted_ = true;
      impl_.Accept<Watch>();
      if (impl_.watchers.size() >= kWatchersMax) {
        busy_ = true;
        return writer_.Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many watchers"}, this);
      }
      impl_.watchers.emplace(this, this);
    }
    if (ok && impl_.watchers.contains(this)) Tell();
  }

  // Writes the status if it differs from the last one sent and no write is in flight.
  void Tell() {
    const auto status = impl_.StatusOf(request_.service());
    if (busy_ || status == told_) return;
    busy_ = true;
    told_ = status;
    HealthCheckResponse response;
    response.set_status(status);
    writer_.Write(response, this);
  }

 private:
  void OnGone(bool) {
    is_gone_ = true;
    impl_.watchers.erase(this);
    if (!busy_) Remove();
  }
  void Remove() {
    impl_.watchers.erase(this);
    impl_.calls.erase(this);
  }

  Impl& impl_;
  grpc::ServerContext context_;
  HealthCheckRequest request_;
  grpc::ServerAsyncWriter<HealthCheckResponse> writer_{&context_};
  MemberCompletion<Watch> gone_{this, &Watch::OnGone};
  HealthCheckResponse::ServingStatus told_ = HealthCheckResponse::UNKNOWN;
  bool accepted_ = false;
  bool is_gone_ = false;
  bool busy_ = true;  // An operation with this tag is pending.
};

GrpcHealth::GrpcHealth(std::string service) : impl_(std::make_unique<Impl>(std::move(service))) {}
GrpcHealth::~GrpcHealth() = default;

std::string GrpcHealth::service_full_name() { return Health::service_full_name(); }

void GrpcHealth::Register(grpc::ServerBuilder* builder) {
  builder->RegisterService(&impl_->service);
}

void GrpcHealth::Start(grpc::ServerCompletionQueue* queue) {
  impl_->queue = queue;
  impl_->Accept<Impl::Check>();
  impl_->Accept<Impl::Watch>();
}

void GrpcHealth::SetServing(bool serving) {
  impl_->serving = serving;
  for (const auto& [key, watch] : impl_->watchers) watch->Tell();
}

}  // namespace fathom::scheduler
