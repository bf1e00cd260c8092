// router/frontend/grpc/rpc_error.h: converts a Status to what gRPC clients get: code, message and
// the google.rpc details ErrorInfo (a stable reason, domain "fathom"), BadRequest (the field) and
// RetryInfo (if a retry can help). Pure.
#pragma once

#include <grpcpp/support/status.h>

#include "common/status.h"

namespace fathom::router {

// The reason of a status without ErrorDetail is the name of its code. OK stays OK.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace fathom::router
