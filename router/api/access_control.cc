#include "router/api/access_control.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/reason.h"
#include "router/api/requests.h"

namespace fathom::router {
namespace {

template <class... Args>
absl::Status NoIdentity(fmt::format_string<Args...> text, Args&&... args) {
  return MakeStatus(absl::StatusCode::kUnauthenticated,
                    fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
absl::Status Denied(fmt::format_string<Args...> text, Args&&... args) {
  return MakeStatus(absl::StatusCode::kPermissionDenied,
                    fmt::format(text, std::forward<Args>(args)...));
}

constexpr int64_t kFileBytesMax = 8 << 20;  // About 50,000 keys.

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const size_t begin = std::min(text.find_first_not_of(kSpace), text.size());
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

// The key in "Bearer KEY"; the scheme's letters have no case.
std::optional<std::string_view> BearerOf(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size()) return std::nullopt;
  for (size_t i = 0; i < kScheme.size(); ++i) {
    const char c = authorization[i];
    if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != kScheme[i]) return std::nullopt;
  }
  return Trimmed(authorization.substr(kScheme.size()));
}

Permission PermissionOf(Access access) {
  if (access == Access::kMetrics) return Permission::kMetrics;
  return access == Access::kAdmin ? Permission::kAdmin : Permission::kInfer;
}

absl::Status Nobody(std::string_view route) {
  return WithReason(Denied("{} is open to nobody on this server", route),
                    Reason::kPermissionDenied);
}

}  // namespace

absl::StatusOr<KeyTable> ParseKeyTable(std::string_view text, std::string_view name) {
  KeyTable table;
  int number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = Trimmed(text.substr(at, end - at));
    at = end + 1;
    ++number;
    if (line.empty() || line.front() == '#') continue;
    auto entry = ParseApiKeyEntry(line);
    if (!entry.ok()) return Annotate(entry.status(), fmt::format("{}:{}", name, number));
    const std::string id = entry->id;
    if (!table.emplace(id, *std::move(entry)).second) {
      return Invalid("{}:{}: the key {} is there twice", name, number, id);
    }
  }
  return table;
}

AccessControl::AccessControl(const std::vector<std::string>& files) {
  for (const std::string& file : files) files_.emplace_back("--api-keys", file, kFileBytesMax);
}

absl::Status AccessControl::Load(int64_t now_unix_s) {
  KeyTable all;
  for (WatchedFile& file : files_) {
    FATHOM_ASSIGN_OR_RETURN(const std::string text, file.Read());
    FATHOM_ASSIGN_OR_RETURN(KeyTable keys, ParseKeyTable(text, "--api-keys " + file.path()));
    const bool usable = std::ranges::any_of(
        keys, [&](const auto& pair) { return !pair.second.Expired(now_unix_s); });
    if (!usable) {
      return Invalid(
          "--api-keys {}: {}; add one with `fathom keys new --file {}`, or leave out --api-keys",
          file.path(), keys.empty() ? "the file has no key" : "the time of every key is over",
          file.path());
    }
    for (auto& [id, entry] : keys) {
      if (!all.emplace(id, std::move(entry)).second) {
        return Invalid("--api-keys {}: the key {} is in another file too", file.path(), id);
      }
    }
  }
  auto shared = std::make_shared<const KeyTable>(std::move(all));
  const std::lock_guard lock(mutex_);
  keys_ = std::move(shared);
  return absl::OkStatus();
}

absl::StatusOr<bool> AccessControl::Reload(int64_t now_unix_s) {
  const bool changed = std::ranges::any_of(files_, [](const auto& f) { return f.Changed(); });
  if (!changed) return false;
  FATHOM_RETURN_IF_ERROR(Load(now_unix_s));
  return true;
}

absl::StatusOr<ApiKeyEntry> AccessControl::EntryOf(const CallerKey& caller,
                                                   int64_t now_unix_s) const {
  if (caller.authorization.empty() && caller.api_key.empty()) {
    return WithReason(NoIdentity("this server asks for an API key; send the header "
                                 "Authorization: Bearer KEY, or x-api-key: KEY"),
                      Reason::kMissingApiKey);
  }
  const auto invalid = [] {
    return WithReason(NoIdentity("the API key of this call is none of this server's; compare it "
                                 "with the key that you were given"),
                      Reason::kInvalidApiKey);
  };
  const std::string_view key = caller.authorization.empty()
                                   ? Trimmed(caller.api_key)
                                   : BearerOf(caller.authorization).value_or("");
  const std::optional<std::string_view> id = IdOfApiKey(key);
  if (!id) return invalid();
  std::shared_ptr<const KeyTable> keys;
  {
    const std::lock_guard lock(mutex_);
    keys = keys_;
  }
  const std::string hash = HashOfApiKey(key);
  const auto found = keys->find(*id);
  // An unknown id takes the time of a known one.
  const std::string zeros(hash.size(), '0');
  const bool same = SameHash(hash, found == keys->end() ? zeros : found->second.hash);
  if (!same || found == keys->end()) return invalid();
  if (found->second.Expired(now_unix_s)) {
    return WithReason(NoIdentity("the time of the API key {} was over at {}; ask for a new one",
                                 *id, FormatExpiry(found->second.expires_unix_s)),
                      Reason::kExpiredApiKey);
  }
  return found->second;
}

absl::StatusOr<std::string> AccessControl::Admit(const CallerKey& caller, std::string_view route,
                                                 int64_t now_unix_s) const {
  const Access access = route.empty() ? Access::kAnyKey : AccessOf(route);
  if (access == Access::kOpen) return kDefaultTenant;
  if (!on()) {
    if (access == Access::kNobody) return Nobody(route);
    return kDefaultTenant;
  }
  FATHOM_ASSIGN_OR_RETURN(ApiKeyEntry entry, EntryOf(caller, now_unix_s));
  if (access == Access::kNobody) return Nobody(route);
  if (access != Access::kAnyKey && !entry.Has(PermissionOf(access))) {
    return WithReason(Denied("{} needs the permission {}, which the API key {} does not "
                             "have; ask for a key that has it",
                             route, NameOf(PermissionOf(access)), entry.id),
                      Reason::kPermissionDenied);
  }
  return std::move(entry.tenant);
}

}  // namespace fathom::router
