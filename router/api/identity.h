// router/api/identity.h: where a request's id and seed come from. The id is the client's own, else
// a function of (tenant, idempotency key, request), else random. The seed is the client's own, else
// a function of tenant and id. A client that repeats a request under its id, at any router and
// after any loss, therefore asks for the same tokens, with or without the seed that Started told.
//
// The function has a version. During an upgrade, routers of two versions run at the same time, and
// the same key and request have different ids at the two. If a client repeats its request at a
// router of the other version by the key alone, that router does not refuse it: the client gets
// another id in Started, another session and other tokens, and the first session continues or is
// kept. A client that repeats its request with the id that Started told (the library in client/
// does so) is not affected, because a given id is used as it is. Within one router,
// IDEMPOTENCY_KEY_REUSED always means that the requests differ, never that the versions differ.
#pragma once

#include <string>

#include "router/api/requests.h"

namespace fathom::router {

// The version of IdFromKey and of the encoding (canonical_encoding.h). One byte.
inline constexpr char kIdentityVersion = 1;

// Bytes 8 to 23, in hex, of the SHA-256 of: the version, tenant, key, CanonicalEncoding(request).
// Before each of the last three stands its length as 8 little-endian bytes.
std::string IdFromKey(const std::string& tenant, const std::string& key,
                      const GenerateRequest& request);

// Bytes 0 to 7, little-endian, of the SHA-256 of tenant and id, each after its length as above.
uint64_t SeedFromId(const std::string& tenant, const std::string& request_id);

Identity IdentityOf(const std::string& tenant, const GenerateRequest& request);

}  // namespace fathom::router
