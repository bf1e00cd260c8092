// router/sessions/session_blob.h: the router_blob of a Submit. The scheduler stores it unread. A
// router that does not have the session needs it, besides the record, to make the client's text.
#pragma once

#include <string>

#include "common/status.h"
#include "router/api/admission.h"

namespace fathom::router {

std::string EncodeBlob(const TextOptions& options);
// INTERNAL: EncodeBlob of this version or of an older one cannot have made `blob`.
absl::StatusOr<TextOptions> DecodeBlob(const std::string& blob);

}  // namespace fathom::router
