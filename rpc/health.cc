#include "rpc/health.h"

#include <utility>
#include <vector>

#include "grpc/health/v1/health.pb.h"

namespace fathom::rpc {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

HealthCheckResponse::ServingStatus StatusOf(bool serving) {
  return serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

grpc::ByteBuffer Encode(HealthCheckResponse::ServingStatus status) {
  HealthCheckResponse response;
  response.set_status(status);
  return ToBuffer(response.SerializeAsString());
}

// Parses the service of the request. Returns false if the bytes are no request.
bool ParseService(const grpc::ByteBuffer& bytes, std::string* service) {
  HealthCheckRequest request;
  if (!request.ParseFromString(Dump(bytes))) return false;
  *service = request.service();
  return true;
}

const grpc::Status kBadRequest(grpc::StatusCode::INVALID_ARGUMENT, "not a HealthCheckRequest");

}  // namespace

// Writes the present status, then each change, one write at a time.
class Health::Watcher final : public CallSink, public std::enable_shared_from_this<Watcher> {
 public:
  Watcher(Health* health, std::shared_ptr<Call> call, bool known)
      : health_(*health), call_(std::move(call)), known_(known) {}

  void Tell(bool serving) {
    const auto status = known_ ? StatusOf(serving) : HealthCheckResponse::SERVICE_UNKNOWN;
    {
      std::lock_guard lock(mutex_);
      wanted_ = status;
      if (writing_ || ended_ || told_ == status) return;
      writing_ = true;
      told_ = status;
    }
    call_->Write(Encode(status));
  }

  void OnWriteDone(bool ok) override {
    HealthCheckResponse::ServingStatus next;
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
      if (!ok || ended_ || told_ == wanted_) return;
      writing_ = true;
      next = told_ = wanted_;
    }
    call_->Write(Encode(next));
  }

  void OnCancel() override {
    {
      std::lock_guard lock(mutex_);
      if (std::exchange(ended_, true)) return;
    }
    call_->End(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    std::lock_guard lock(health_.mutex_);
    health_.watchers_.remove(shared_from_this());
  }

 private:
  Health& health_;
  const std::shared_ptr<Call> call_;
  const bool known_;
  std::mutex mutex_;  // Guards what follows.
  HealthCheckResponse::ServingStatus told_ = HealthCheckResponse::UNKNOWN;
  HealthCheckResponse::ServingStatus wanted_ = HealthCheckResponse::UNKNOWN;
  bool writing_ = false;
  bool ended_ = false;
};

Health::Health(size_t watchers_max) : watchers_max_(watchers_max) {}
Health::~Health() = default;

bool Health::Knows(const std::string& service) const { return services_.contains(service); }

void Health::SetServing(bool serving) {
  std::vector<std::shared_ptr<Watcher>> watchers;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(serving_, serving) == serving) return;
    watchers.assign(watchers_.begin(), watchers_.end());
  }
  for (const auto& watcher : watchers) watcher->Tell(serving);
}

void Health::Check(const std::shared_ptr<Call>& call, const grpc::ByteBuffer& request) {
  std::string service;
  if (!ParseService(request, &service)) return call->End(kBadRequest);
  if (!Knows(service)) {
    return call->End({grpc::StatusCode::NOT_FOUND, "unknown service '" + service + "'"});
  }
  bool serving = false;
  {
    std::lock_guard lock(mutex_);
    serving = serving_;
  }
  call->Reply(Encode(StatusOf(serving)));
}

void Health::Watch(const std::shared_ptr<Call>& call, const grpc::ByteBuffer& request) {
  std::string service;
  if (!ParseService(request, &service)) return call->End(kBadRequest);
  const auto watcher = std::make_shared<Watcher>(this, call, Knows(service));
  bool serving = false;
  bool full = false;
  {
    std::lock_guard lock(mutex_);
    full = watchers_.size() >= watchers_max_;
    if (!full) watchers_.push_back(watcher);
    serving = serving_;
  }
  if (full) {
    return call->End({grpc::StatusCode::RESOURCE_EXHAUSTED,
                      "this port has as many health watchers as it may; use Check"});
  }
  call->SetSink(watcher);
  watcher->Tell(serving);
}

}  // namespace fathom::rpc
