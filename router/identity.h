// router/identity.h: where a request's id and seed come from. With an idempotency key both are a
// function of (tenant, key, parsed request); without one they are random, once.
#pragma once

#include <string>

#include "router/admission.h"

namespace fathom::router {

// SHA-256 over tenant, key and `serialized` (the request's deterministic serialization), each
// preceded by its length as 8 little-endian bytes: seed = bytes 0-7 little-endian, request_id = hex
// of bytes 8-23.
Identity IdentityFromKey(const std::string& tenant, const std::string& key,
                         const std::string& serialized);

// From the key where `request` has one, else drawn; request.request_id and sampling.seed take
// precedence.
Identity IdentityOf(const PublicRequest& request, const std::string& serialized);

}  // namespace fathom::router
