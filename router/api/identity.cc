#include "router/api/identity.h"

#include "common/check.h"
#include "common/process.h"
#include "router/api/canonical_encoding.h"

namespace fathom::router {
namespace {

void AppendWithSize(std::string* to, const std::string& bytes) {
  for (int shift = 0; shift < 64; shift += 8) {
    to->push_back(static_cast<char>(static_cast<uint64_t>(bytes.size()) >> shift));
  }
  *to += bytes;
}

}  // namespace

std::string IdFromKey(const std::string& tenant, const std::string& key,
                      const GenerateRequest& request) {
  std::string input(1, kIdentityVersion);
  AppendWithSize(&input, tenant);
  AppendWithSize(&input, key);
  AppendWithSize(&input, CanonicalEncoding(request));
  return Sha256Hex(input).substr(16, 32);
}

uint64_t SeedFromId(const std::string& tenant, const std::string& request_id) {
  std::string input;
  AppendWithSize(&input, tenant);
  AppendWithSize(&input, request_id);
  const std::string hex = Sha256Hex(input);
  FATHOM_CHECK(hex.size() == 64);
  uint64_t seed = 0;
  for (int byte = 7; byte >= 0; --byte) {  // Little-endian: byte 0 is the lowest.
    seed = seed << 8 | std::stoul(hex.substr(2 * byte, 2), nullptr, 16);
  }
  return seed;
}

Identity IdentityOf(const std::string& tenant, const GenerateRequest& request) {
  const PublicRequest& params = request.params;
  std::string id = params.request_id;
  if (id.empty()) {
    id = params.idempotency_key.empty() ? RandomId()
                                        : IdFromKey(tenant, params.idempotency_key, request);
  }
  const uint64_t seed = params.sampling.seed.value_or(SeedFromId(tenant, id));
  return {{tenant, std::move(id)}, seed};
}

}  // namespace fathom::router
