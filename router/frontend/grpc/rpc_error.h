// router/frontend/grpc/rpc_error.h: a Status as gRPC clients get it: code, message and google.rpc
// details: ErrorInfo (stable reason, domain "fathom"), BadRequest naming the field, RetryInfo where
// trying again helps. Pure.
#pragma once

#include <grpcpp/support/status.h>

#include "common/status.h"

namespace fathom::router {

// A status without ErrorDetail gets its code's name as the reason. OK stays OK.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace fathom::router
