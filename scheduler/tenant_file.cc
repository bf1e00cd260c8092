#include "scheduler/tenant_file.h"

#include <sys/stat.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "common/utf8.h"

namespace fathom::scheduler {
namespace {

constexpr int64_t kFileBytesMax = 1 << 20;
constexpr size_t kTenantsMax = 10'000;
constexpr size_t kNameBytesMax = 256;

// What is read, for messages: "FILE:LINE: tenants.NAME.weight".
struct Place {
  std::string file;
  std::string path;
  std::string At(const YAML::Node& node) const {
    const int line = node.Mark().line + 1;
    return line > 0 ? fmt::format("{}:{}: {}", file, line, path)
                    : fmt::format("{}: {}", file, path);
  }
  Place Under(const std::string& key) const {
    return {file, path.empty() ? key : path + "." + key};
  }
};

template <class T>
absl::Status ReadNumber(const YAML::Node& node, const Place& place, int64_t min, int64_t max,
                        T* to) {
  int64_t value = 0;
  const std::string text = node.IsScalar() ? node.Scalar() : "";
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value < min ||
      value > max) {
    return Invalid("{}: '{}' is not a whole number of {} to {}", place.At(node),
                   node.IsScalar() ? text : "a list or a map", min, max);
  }
  *to = static_cast<T>(value);
  return absl::OkStatus();
}

// Calls `read(key, value)` for each key of a map, which returns false for a key that it does not
// know.
template <class Read>
absl::Status ReadMap(const YAML::Node& node, const Place& place, const char* known,
                     const Read& read) {
  if (!node.IsMap()) return Invalid("{}: expected a map of {}", place.At(node), known);
  std::set<std::string> keys;
  for (const auto& pair : node) {
    if (!pair.first.IsScalar()) return Invalid("{}: a key is no text", place.At(pair.first));
    const std::string& key = pair.first.Scalar();
    if (!keys.insert(key).second) {
      return Invalid("{}: is given twice", place.Under(key).At(pair.first));
    }
    absl::Status status;
    if (!read(key, pair.second, &status)) {
      return Invalid("{}: unknown key; known are {}", place.Under(key).At(pair.first), known);
    }
    FATHOM_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

absl::Status ReadLimits(const YAML::Node& node, const Place& place, TenantLimits* to) {
  return ReadMap(node, place,
                 "weight, running_max, queued_max, queued_tokens_max, tokens_per_minute",
                 [&](const std::string& key, const YAML::Node& value, absl::Status* status) {
                   const Place at = place.Under(key);
                   if (key == "weight") {
                     *status = ReadNumber(value, at, 1, kTenantWeightMax, &to->weight);
                   } else if (key == "running_max") {
                     *status = ReadNumber(value, at, 0, kTenantRequestsMax, &to->running_max);
                   } else if (key == "queued_max") {
                     *status = ReadNumber(value, at, 0, kTenantRequestsMax, &to->queued_max);
                   } else if (key == "queued_tokens_max") {
                     *status = ReadNumber(value, at, 0, kTenantTokensMax, &to->queued_tokens_max);
                   } else if (key == "tokens_per_minute") {
                     *status = ReadNumber(value, at, 0, kTenantTokensMax, &to->tokens_per_minute);
                   } else {
                     return false;
                   }
                   return true;
                 });
}

absl::Status ReadTenants(const YAML::Node& node, const Place& place, TenantTable* table) {
  return ReadMap(node, place, "names of tenants",
                 [&](const std::string& name, const YAML::Node& value, absl::Status* status) {
                   if (name.empty() || name.size() > kNameBytesMax ||
                       FirstInvalidUtf8(name) != std::string::npos) {
                     *status = Invalid("{}: a tenant's name has 1 to {} bytes of UTF-8",
                                       place.At(value), kNameBytesMax);
                   } else if (table->tenants.size() >= kTenantsMax) {
                     *status = Invalid("{}: more than {} tenants", place.At(value), kTenantsMax);
                   } else {
                     TenantLimits limits = table->defaults;
                     *status = ReadLimits(value, place.Under(name), &limits);
                     table->tenants.emplace(name, limits);
                   }
                   return true;
                 });
}

absl::Status ReadCosts(const YAML::Node& node, const Place& place, TenantTable* table) {
  return ReadMap(node, place, "prefill, decode",
                 [&](const std::string& key, const YAML::Node& value, absl::Status* status) {
                   if (key != "prefill" && key != "decode") return false;
                   *status =
                       ReadNumber(value, place.Under(key), 1, kTokenCostMax,
                                  key == "prefill" ? &table->prefill_cost : &table->decode_cost);
                   return true;
                 });
}

absl::StatusOr<TenantTable> ReadTable(const YAML::Node& root, const std::string& name) {
  const Place place{name, ""};
  TenantTable table;
  YAML::Node tenants;
  FATHOM_RETURN_IF_ERROR(
      ReadMap(root, place, "token_costs, defaults, tenants",
              [&](const std::string& key, const YAML::Node& value, absl::Status* status) {
                if (key == "token_costs") {
                  *status = ReadCosts(value, place.Under(key), &table);
                } else if (key == "defaults") {
                  *status = ReadLimits(value, place.Under(key), &table.defaults);
                } else if (key == "tenants") {
                  tenants.reset(value);  // Read at last: each of them begins with the defaults.
                } else {
                  return false;
                }
                return true;
              }));
  if (tenants.IsDefined() && !tenants.IsNull()) {
    FATHOM_RETURN_IF_ERROR(ReadTenants(tenants, place.Under("tenants"), &table));
  }
  return table;
}

}  // namespace

absl::StatusOr<TenantTable> ParseTenantTable(const std::string& text, const std::string& name) {
  try {
    const YAML::Node root = YAML::Load(text);
    if (root.IsNull()) return TenantTable();  // An empty file: no limits.
    return ReadTable(root, name);
  } catch (const YAML::Exception& error) {
    return Invalid("{}: {}", name, error.what());
  }
}

std::optional<TenantFile::Stamp> TenantFile::Look() const {
  struct stat file = {};
  if (stat(path_.c_str(), &file) != 0) return std::nullopt;
  return Stamp{static_cast<int64_t>(file.st_dev), static_cast<int64_t>(file.st_ino), file.st_size,
               file.st_mtim.tv_sec * int64_t{1'000'000'000} + file.st_mtim.tv_nsec};
}

absl::StatusOr<TenantTable> TenantFile::Read() {
  seen_ = Look();
  std::ifstream file(path_, std::ios::binary);
  if (!seen_ || !file) {
    return NotFound("--tenant-limits {}: cannot be opened: {}", path_, std::strerror(errno));
  }
  if (seen_->bytes > kFileBytesMax) {
    return Invalid("--tenant-limits {}: {} bytes, of at most {}", path_, seen_->bytes,
                   kFileBytesMax);
  }
  std::ostringstream text;
  text << file.rdbuf();
  return ParseTenantTable(text.str(), path_);
}

std::optional<absl::StatusOr<TenantTable>> TenantFile::Poll() {
  const std::optional<Stamp> now = Look();
  if (!now || now == seen_) return std::nullopt;
  return Read();
}

}  // namespace fathom::scheduler
