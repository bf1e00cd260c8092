#include "router/frontend/grpc/rpc_error.h"

#include <string>

#include "common/utf8.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace fathom::router {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const ErrorDetail detail =
      DetailOf(status).value_or(ErrorDetail{std::string(CodeName(status.code())), "", 0});
  const std::string message = ToUtf8(Message(status));  // A protobuf string must be UTF-8.
  google::rpc::Status rpc;
  rpc.set_code(static_cast<int>(status.code()));
  rpc.set_message(message);
  google::rpc::ErrorInfo info;
  info.set_reason(detail.reason);
  info.set_domain("fathom");
  rpc.add_details()->PackFrom(info);
  if (!detail.field.empty()) {
    google::rpc::BadRequest bad;
    auto* violation = bad.add_field_violations();
    violation->set_field(detail.field);
    violation->set_description(message);
    rpc.add_details()->PackFrom(bad);
  }
  if (detail.retry_after_ms > 0) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(detail.retry_after_ms / 1000);
    retry.mutable_retry_delay()->set_nanos(
        static_cast<int32_t>(detail.retry_after_ms % 1000 * 1'000'000));
    rpc.add_details()->PackFrom(retry);
  }
  return {static_cast<grpc::StatusCode>(status.code()), message, rpc.SerializeAsString()};
}

}  // namespace fathom::router
