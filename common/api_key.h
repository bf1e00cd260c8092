// common/api_key.h: the form of API keys, and of the lines of a file of keys (docs/SECURITY.md,
// "API keys"). `fathom keys` makes keys and lines, the router reads the lines.
//
// A key is "fk-ID-SECRET": ID has 12 hex digits and names the key's line, SECRET has 64, 256 random
// bits. A file has the SHA-256 of the whole key. A slow hash would not help: it makes guessing a
// password expensive, and 256 random bits cannot be guessed at any price. Pure but for NewApiKey.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/status.h"

namespace fathom {

// What a key may be used for. The values are bits of ApiKeyEntry::permissions.
enum class Permission : uint8_t {
  kInfer = 1,    // Requests to the model, and what belongs to them.
  kMetrics = 2,  // /metrics.
  kAdmin = 4,    // The state of the cluster.
};

// "infer"
std::string_view NameOf(Permission permission);

// One line of a file of keys:
//   ID sha256:HEX tenant=NAME permissions=infer,metrics expires=2027-01-31T00:00:00Z
struct ApiKeyEntry {
  std::string id;
  std::string hash;  // 64 hex digits.
  std::string tenant;
  uint8_t permissions = 0;     // Bits of Permission.
  int64_t expires_unix_s = 0;  // From then on the key is refused; 0: never.

  bool Has(Permission permission) const {
    return (permissions & static_cast<uint8_t>(permission)) != 0;
  }
  bool Expired(int64_t now_unix_s) const {
    return expires_unix_s != 0 && now_unix_s >= expires_unix_s;
  }
};

std::string NewApiKey();

// The ID of a key; nullopt: `key` does not have the form of a key.
std::optional<std::string_view> IdOfApiKey(std::string_view key);
std::string HashOfApiKey(std::string_view key);
// Whether two hashes are equal, in a time that depends on their lengths alone.
bool SameHash(std::string_view a, std::string_view b);

// "infer,admin" to bits. INVALID_ARGUMENT names the word that is no permission.
absl::StatusOr<uint8_t> ParsePermissions(std::string_view text);
// "2027-01-31T00:00:00Z" or "2027-01-31" to seconds since 1970, UTC. INVALID_ARGUMENT names the
// text.
absl::StatusOr<int64_t> ParseExpiry(std::string_view text);
std::string FormatExpiry(int64_t unix_s);
// INVALID_ARGUMENT: a tenant's name has 1 to 256 bytes of UTF-8 without spaces and control
// characters.
absl::Status CheckTenantName(std::string_view name);

std::string FormatApiKeyEntry(const ApiKeyEntry& entry);
// INVALID_ARGUMENT says which part of the line is wrong. A message never has the hash.
absl::StatusOr<ApiKeyEntry> ParseApiKeyEntry(std::string_view line);

}  // namespace fathom
