// router/api/identity.h: where a request's id and seed come from. The id is the client's own, else
// a function of (tenant, idempotency key, request), else random, once. The seed is the client's
// own, else a function of tenant and id: whoever repeats a request under its id, at any router and
// after any loss, asks for the same tokens, with or without the seed that Started told.
#pragma once

#include <string>

#include "router/api/admission.h"

namespace fathom::router {

// SHA-256 over tenant, key and `serialized` (the request's deterministic serialization), each
// preceded by its length as 8 little-endian bytes: hex of bytes 8-23.
std::string IdFromKey(const std::string& tenant, const std::string& key,
                      const std::string& serialized);

// SHA-256 over tenant and id, each preceded by its length likewise: bytes 0-7, little-endian.
uint64_t SeedFromId(const std::string& tenant, const std::string& request_id);

// `serialized` is the deterministic serialization of what the request asks for: without its
// deadline, id and seed, which may differ between repetitions.
Identity IdentityOf(const PublicRequest& request, const std::string& serialized);

}  // namespace fathom::router
