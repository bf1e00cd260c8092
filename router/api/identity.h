// router/api/identity.h: where a request's id and seed come from. The id is the client's own, else
// a function of (tenant, idempotency key, request), else random, once. The seed is the client's
// own, else a function of tenant and id: whoever repeats a request under its id, at any router and
// after any loss, asks for the same tokens, with or without the seed that Started told.
//
// The function is versioned. While two versions of the router run side by side (an upgrade), the
// same key and request have another id at a router of the other version. A client that repeats its
// request there by the key alone is not refused: it gets another id in Started, a session of its
// own and other tokens, and the first session goes on or is kept as if the key had been new. A
// client that repeats it with the id that Started told (the bundled one does) is not concerned,
// for then the id counts. Within one router IDEMPOTENCY_KEY_REUSED means another request, never
// another version.
#pragma once

#include <string>

#include "router/api/requests.h"

namespace fathom::router {

// Of IdFromKey and of the encoding (canonical_encoding.h). One byte.
inline constexpr char kIdentityVersion = 1;

// SHA-256 over the version, tenant, key and CanonicalEncoding(request), the last three each
// preceded by its length as 8 little-endian bytes: hex of bytes 8-23.
std::string IdFromKey(const std::string& tenant, const std::string& key,
                      const GenerateRequest& request);

// SHA-256 over tenant and id, each preceded by its length likewise: bytes 0-7, little-endian.
uint64_t SeedFromId(const std::string& tenant, const std::string& request_id);

Identity IdentityOf(const std::string& tenant, const GenerateRequest& request);

}  // namespace fathom::router
