#include "common/api_key.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <utility>
#include <vector>

#include "common/process.h"
#include "common/utf8.h"

namespace fathom {
namespace {

constexpr std::string_view kKeyPrefix = "fk-";
constexpr std::string_view kHashPrefix = "sha256:";
constexpr size_t kIdDigits = 12;
constexpr size_t kSecretDigits = 64;
constexpr size_t kHashDigits = 64;
constexpr size_t kTenantBytesMax = 256;

constexpr std::array<std::pair<std::string_view, Permission>, 3> kPermissions = {
    {{"infer", Permission::kInfer},
     {"metrics", Permission::kMetrics},
     {"admin", Permission::kAdmin}}};

bool IsHex(std::string_view text, size_t digits) {
  return text.size() == digits && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> words;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    if (end > at) words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

// Digits at `at`; -1: there are none.
int NumberAt(std::string_view text, size_t at, size_t digits) {
  int value = -1;
  if (at + digits > text.size()) return -1;
  const char* const first = text.data() + at;
  const auto [end, error] = std::from_chars(first, first + digits, value);
  return error == std::errc() && end == first + digits && *first != '-' ? value : -1;
}

}  // namespace

std::string_view NameOf(Permission permission) {
  for (const auto& [name, value] : kPermissions) {
    if (value == permission) return name;
  }
  return "";
}

std::string NewApiKey() {
  return fmt::format("{}{}-{}{}", kKeyPrefix, RandomId().substr(0, kIdDigits), RandomId(),
                     RandomId());
}

std::optional<std::string_view> IdOfApiKey(std::string_view key) {
  constexpr size_t kDash = kKeyPrefix.size() + kIdDigits;
  if (key.size() != kDash + 1 + kSecretDigits || !key.starts_with(kKeyPrefix)) return std::nullopt;
  const std::string_view id = key.substr(kKeyPrefix.size(), kIdDigits);
  const bool is_key =
      IsHex(id, kIdDigits) && key[kDash] == '-' && IsHex(key.substr(kDash + 1), kSecretDigits);
  return is_key ? std::optional(id) : std::nullopt;
}

std::string HashOfApiKey(std::string_view key) { return Sha256Hex(std::string(key)); }

bool SameHash(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

absl::StatusOr<uint8_t> ParsePermissions(std::string_view text) {
  uint8_t bits = 0;
  for (const std::string_view word : Split(text, ',')) {
    const auto row =
        std::ranges::find_if(kPermissions, [&](const auto& pair) { return pair.first == word; });
    if (row == kPermissions.end()) {
      return Invalid("permissions: '{}' is none; they are infer, metrics, admin", word);
    }
    bits = static_cast<uint8_t>(bits | static_cast<uint8_t>(row->second));
  }
  if (bits == 0) return Invalid("permissions: there is none; they are infer, metrics, admin");
  return bits;
}

absl::StatusOr<int64_t> ParseExpiry(std::string_view text) {
  using std::chrono::year, std::chrono::month, std::chrono::day;
  const int y = NumberAt(text, 0, 4), m = NumberAt(text, 5, 2), d = NumberAt(text, 8, 2);
  const std::chrono::year_month_day date{year(y), month(static_cast<unsigned>(m)),
                                         day(static_cast<unsigned>(d))};
  bool ok = y > 0 && m > 0 && d > 0 && date.ok() && text[4] == '-' && text[7] == '-';
  int64_t seconds = 0;
  if (ok && text.size() != 10) {
    const int h = NumberAt(text, 11, 2), min = NumberAt(text, 14, 2), s = NumberAt(text, 17, 2);
    ok = text.size() == 20 && text[10] == 'T' && text[13] == ':' && text[16] == ':' &&
         text[19] == 'Z' && h >= 0 && h < 24 && min >= 0 && min < 60 && s >= 0 && s < 60;
    seconds = int64_t{h} * 3600 + int64_t{min} * 60 + s;
  }
  if (!ok) {
    return Invalid("expires: '{}' is no date; write 2027-01-31 or 2027-01-31T12:00:00Z (UTC)",
                   text);
  }
  return int64_t{std::chrono::sys_days(date).time_since_epoch().count()} * 86'400 + seconds;
}

std::string FormatExpiry(int64_t unix_s) {
  using std::chrono::floor;
  const std::chrono::sys_seconds time{std::chrono::seconds(unix_s)};
  const auto day = floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const int64_t of_day = (time - day).count();
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     of_day / 3600, of_day / 60 % 60, of_day % 60);
}

absl::Status CheckTenantName(std::string_view name) {
  const bool plain = std::ranges::none_of(
      name, [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == 0x7f; });
  if (!name.empty() && name.size() <= kTenantBytesMax && plain &&
      FirstInvalidUtf8(name) == std::string::npos) {
    return absl::OkStatus();
  }
  return Invalid("tenant: a name has 1 to {} bytes of UTF-8, without spaces", kTenantBytesMax);
}

std::string FormatApiKeyEntry(const ApiKeyEntry& entry) {
  std::string names;
  for (const auto& [name, permission] : kPermissions) {
    if (entry.Has(permission)) names += (names.empty() ? "" : ",") + std::string(name);
  }
  return fmt::format(
      "{} {}{} tenant={} permissions={}{}", entry.id, kHashPrefix, entry.hash, entry.tenant, names,
      entry.expires_unix_s == 0 ? "" : " expires=" + FormatExpiry(entry.expires_unix_s));
}

absl::StatusOr<ApiKeyEntry> ParseApiKeyEntry(std::string_view line) {
  const std::vector<std::string_view> words = Split(line, ' ');
  if (words.size() < 2 || !IsHex(words[0], kIdDigits) || !words[1].starts_with(kHashPrefix) ||
      !IsHex(words[1].substr(kHashPrefix.size()), kHashDigits)) {
    return Invalid(
        "a line begins with the id of a key ({} hex digits) and sha256: with its hash; `fathom "
        "keys "
        "new` prints one",
        kIdDigits);
  }
  ApiKeyEntry entry{.id = std::string(words[0]),
                    .hash = std::string(words[1].substr(kHashPrefix.size()))};
  for (size_t i = 2; i < words.size(); ++i) {
    const size_t equal = std::min(words[i].find('='), words[i].size());
    const std::string_view name = words[i].substr(0, equal);
    const std::string_view value = words[i].substr(std::min(equal + 1, words[i].size()));
    if (name == "tenant" && entry.tenant.empty()) {
      FATHOM_RETURN_IF_ERROR(CheckTenantName(value));
      entry.tenant = std::string(value);
    } else if (name == "permissions" && entry.permissions == 0) {
      FATHOM_ASSIGN_OR_RETURN(entry.permissions, ParsePermissions(value));
    } else if (name == "expires" && entry.expires_unix_s == 0) {
      FATHOM_ASSIGN_OR_RETURN(entry.expires_unix_s, ParseExpiry(value));
    } else {
      return Invalid("'{}': known are tenant=, permissions= and expires=, each once",
                     name.substr(0, 64));
    }
  }
  if (entry.tenant.empty()) return Invalid("tenant= is missing");
  if (entry.permissions == 0) return Invalid("permissions= is missing");
  return entry;
}

}  // namespace fathom
