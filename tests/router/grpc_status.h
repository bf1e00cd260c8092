// tests/router/grpc_status.h: a gRPC status with google.rpc details as the Status that it was made
// of, for tests that call a Fathom server. Details that cannot be read are left out.
#pragma once

#include <grpcpp/support/status.h>

#include <utility>

#include "common/status.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace fathom::router {

inline absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result =
      MakeStatus(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status rpc;
  if (status.error_details().empty() || !rpc.ParseFromString(status.error_details())) return result;
  ErrorDetail detail;
  for (const auto& any : rpc.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::RetryInfo retry;
    if (any.UnpackTo(&info)) {
      detail.reason = info.reason();
    } else if (any.UnpackTo(&bad) && bad.field_violations_size() > 0) {
      detail.field = bad.field_violations(0).field();
    } else if (any.UnpackTo(&retry)) {
      detail.retry_after_ms =
          retry.retry_delay().seconds() * 1000 + retry.retry_delay().nanos() / 1'000'000;
    }
  }
  return WithDetail(std::move(result), detail);
}

}  // namespace fathom::router
