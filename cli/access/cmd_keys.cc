#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "cli/access/private_file.h"
#include "cli/commands.h"
#include "common/api_key.h"
#include "common/output.h"

namespace fathom::client {
namespace {

constexpr int64_t kKeyFileBytesMax = 8 << 20;

struct KeysFlags {
  std::string action, file, tenant = "default", permissions = "infer", expires, id;
};

int64_t KeysNowUnixS() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

std::vector<std::string> LinesOf(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

// The lines of the file, which need not exist if `may_miss`. INVALID_ARGUMENT: a line is no key.
absl::StatusOr<std::vector<std::string>> ReadKeyLines(const std::string& file, bool may_miss) {
  if (file.empty()) return Invalid("--file is missing; give the file of --api-keys");
  auto text = ReadWholeFile(file, kKeyFileBytesMax);
  if (absl::IsNotFound(text.status()) && may_miss && access(file.c_str(), F_OK) != 0) {
    return std::vector<std::string>();
  }
  if (!text.ok()) return text.status();
  std::vector<std::string> lines = LinesOf(*text);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].empty() || lines[i].front() == '#') continue;
    const auto entry = ParseApiKeyEntry(lines[i]);
    if (!entry.ok()) return Annotate(entry.status(), fmt::format("{}:{}", file, i + 1));
  }
  return lines;
}

absl::Status NewKey(const KeysFlags& flags) {
  const std::string key = NewApiKey();
  ApiKeyEntry entry{.id = std::string(*IdOfApiKey(key)), .hash = HashOfApiKey(key)};
  FATHOM_RETURN_IF_ERROR(CheckTenantName(flags.tenant));
  entry.tenant = flags.tenant;
  FATHOM_ASSIGN_OR_RETURN(entry.permissions, ParsePermissions(flags.permissions));
  if (!flags.expires.empty()) {
    FATHOM_ASSIGN_OR_RETURN(entry.expires_unix_s, ParseExpiry(flags.expires));
    if (entry.Expired(KeysNowUnixS())) {
      return Invalid("--expires {}: this time is over; give a later one", flags.expires);
    }
  }
  FATHOM_ASSIGN_OR_RETURN(std::vector<std::string> lines, ReadKeyLines(flags.file, true));
  lines.push_back(FormatApiKeyEntry(entry));
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  FATHOM_RETURN_IF_ERROR(WritePrivateFile(flags.file, text));
  PrintAnswer("{}\n", key);
  Diagnose("the key of tenant {} is above, once: {} has only its hash", entry.tenant, flags.file);
  return absl::OkStatus();
}

absl::Status ListKeys(const KeysFlags& flags) {
  FATHOM_ASSIGN_OR_RETURN(const std::vector<std::string> lines, ReadKeyLines(flags.file, false));
  for (const std::string& line : lines) {
    if (line.empty() || line.front() == '#') continue;
    FATHOM_ASSIGN_OR_RETURN(const ApiKeyEntry entry, ParseApiKeyEntry(line));
    std::string permissions;
    for (const Permission one : {Permission::kInfer, Permission::kMetrics, Permission::kAdmin}) {
      if (entry.Has(one))
        permissions += (permissions.empty() ? "" : ",") + std::string(NameOf(one));
    }
    PrintAnswer("{}  {:<20}  {}  {}\n", entry.id, permissions, entry.tenant,
                entry.expires_unix_s == 0       ? "never expires"
                : entry.Expired(KeysNowUnixS()) ? "expired " + FormatExpiry(entry.expires_unix_s)
                                                : "until " + FormatExpiry(entry.expires_unix_s));
  }
  return absl::OkStatus();
}

absl::Status RemoveKey(const KeysFlags& flags) {
  FATHOM_ASSIGN_OR_RETURN(std::vector<std::string> lines, ReadKeyLines(flags.file, false));
  const auto of_id = [&](const std::string& line) { return line.starts_with(flags.id + " "); };
  if (flags.id.empty() || std::erase_if(lines, of_id) == 0) {
    return NotFound("--id '{}': {} has no such key; `fathom keys list` shows the ids", flags.id,
                    flags.file);
  }
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return WritePrivateFile(flags.file, text);
}

}  // namespace

int RunKeys(int argc, const char* const* argv) {
  KeysFlags keys;
  Flags flags("fathom keys", "Makes, lists and removes the API keys of a file (--api-keys).");
  flags.AddPositional("ACTION", &keys.action, /*required=*/true, "new, list or remove");
  flags.Group("Key");
  flags.Add("--file", &keys.file, "The file; new makes it, readable by this user alone");
  flags.Add("--tenant", &keys.tenant, "Tenant of the new key, as --tenant-limits names it");
  flags.Add("--permissions", &keys.permissions,
            "What the new key may be used for, with commas: infer, metrics, admin");
  flags.Add(
      "--expires", &keys.expires,
      "From when on the new key is refused, UTC: 2027-01-31 or 2027-01-31T12:00:00Z; default: "
      "never");
  flags.Add("--id", &keys.id, "The key to remove");
  if (const auto code = flags.Parse(argc, argv)) return *code;
  absl::Status status = Invalid("'{}' is no action; it is new, list or remove", keys.action);
  if (keys.action == "new") status = NewKey(keys);
  if (keys.action == "list") status = ListKeys(keys);
  if (keys.action == "remove") status = RemoveKey(keys);
  return status.ok() ? kExitOk : Fail("keys", status);
}

}  // namespace fathom::client
