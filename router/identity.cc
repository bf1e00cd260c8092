#include "router/identity.h"

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

Identity IdentityFromKey(const std::string& tenant, const std::string& key,
                         const std::string& serialized) {
  std::string input;
  AppendSized(&input, tenant);
  AppendSized(&input, key);
  AppendSized(&input, serialized);
  const std::string hex = Sha256Hex(input);
  FATHOM_CHECK(hex.size() == 64);
  Identity identity;
  identity.request_id = hex.substr(16, 32);
  for (int byte = 7; byte >= 0; --byte) {  // Little-endian: byte 0 is the lowest.
    identity.seed = identity.seed << 8 | std::stoul(hex.substr(2 * byte, 2), nullptr, 16);
  }
  return identity;
}

Identity IdentityOf(const PublicRequest& request, const std::string& serialized) {
  Identity identity = request.idempotency_key.empty()
                          ? Identity{RandomId(), RandomSeed()}
                          : IdentityFromKey(request.tenant, request.idempotency_key, serialized);
  if (!request.request_id.empty()) identity.request_id = request.request_id;
  if (request.sampling.seed) identity.seed = *request.sampling.seed;
  return identity;
}

}  // namespace fathom::router
