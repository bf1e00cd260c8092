#include "router/api/identity.h"

#include "common/check.h"
#include "common/process.h"

namespace fathom::router {
namespace {

void AppendSized(std::string* to, const std::string& bytes) {
  for (int shift = 0; shift < 64; shift += 8) {
    to->push_back(static_cast<char>(static_cast<uint64_t>(bytes.size()) >> shift));
  }
  *to += bytes;
}

}  // namespace

std::string IdFromKey(const std::string& tenant, const std::string& key,
                      const std::string& serialized) {
  std::string input;
  AppendSized(&input, tenant);
  AppendSized(&input, key);
  AppendSized(&input, serialized);
  return Sha256Hex(input).substr(16, 32);
}

uint64_t SeedFromId(const std::string& tenant, const std::string& request_id) {
  std::string input;
  AppendSized(&input, tenant);
  AppendSized(&input, request_id);
  const std::string hex = Sha256Hex(input);
  FATHOM_CHECK(hex.size() == 64);
  uint64_t seed = 0;
  for (int byte = 7; byte >= 0; --byte) {  // Little-endian: byte 0 is the lowest.
    seed = seed << 8 | std::stoul(hex.substr(2 * byte, 2), nullptr, 16);
  }
  return seed;
}

Identity IdentityOf(const PublicRequest& request, const std::string& serialized) {
  Identity identity;
  identity.request_id = request.request_id;
  if (identity.request_id.empty()) {
    identity.request_id = request.idempotency_key.empty()
                              ? RandomId()
                              : IdFromKey(request.tenant, request.idempotency_key, serialized);
  }
  identity.seed = request.sampling.seed.value_or(SeedFromId(request.tenant, identity.request_id));
  return identity;
}

}  // namespace fathom::router
