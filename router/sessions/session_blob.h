// router/sessions/session_blob.h: the opaque router_blob of a Submit: what a router that knows
// nothing needs beside the record to turn ids into the client's text.
#pragma once

#include <string>

#include "common/status.h"
#include "router/api/admission.h"

namespace fathom::router {

std::string EncodeBlob(const TextOptions& options);
// INTERNAL when it is not one that EncodeBlob of this or an older version made.
absl::StatusOr<TextOptions> DecodeBlob(const std::string& blob);

}  // namespace fathom::router
