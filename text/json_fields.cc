#include "text/json_fields.h"

#include <fstream>
#include <iterator>

#include "common/lfs_pointer.h"
#include "common/utf8.h"

namespace fathom {
namespace {

constexpr size_t kShownBytes = 80;

std::string Shown(const Json& value) {
  return Shortened(value.dump(-1, ' ', false, Json::error_handler_t::replace), kShownBytes);
}

}  // namespace

absl::Status JsonAt::Refuse(std::string_view expected) const {
  return Invalid("{} is {}; {}", where, Shown(value), expected);
}

JsonAt JsonAt::Child(std::string_view key, const Json& child) const {
  return {child, fmt::format("{}{}{}", where, where.ends_with(": ") ? "" : ".", key)};
}

JsonAt JsonAt::Element(size_t index) const {
  return {value[index], fmt::format("{}[{}]", where, index)};
}

absl::StatusOr<JsonFields> JsonFields::Open(const JsonAt& at) {
  if (!at.value.is_object()) return at.Refuse("expected an object");
  return JsonFields(at);
}

std::optional<JsonAt> JsonFields::Find(const std::string& key) {
  seen_.insert(key);
  const auto found = at_.value.find(key);
  if (found == at_.value.end() || found->is_null()) return std::nullopt;
  return std::optional<JsonAt>(at_.Child(key, *found));
}

absl::Status JsonFields::Missing(const std::string& key, std::string_view type) const {
  return Invalid("{}{}{} is missing; expected {}", at_.where, at_.where.ends_with(": ") ? "" : ".",
                 key, type);
}

absl::StatusOr<bool> JsonFields::Bool(const std::string& key, std::optional<bool> fallback) {
  const std::optional<JsonAt> found = Find(key);
  if (!found && fallback) return *fallback;
  if (!found) return Missing(key, "true or false");
  if (!found->value.is_boolean()) return found->Refuse("expected true or false");
  return found->value.get<bool>();
}

absl::StatusOr<std::string> JsonFields::String(const std::string& key,
                                               std::optional<std::string> fallback) {
  const std::optional<JsonAt> found = Find(key);
  if (!found && fallback) return *std::move(fallback);
  if (!found) return Missing(key, "a string");
  if (!found->value.is_string()) return found->Refuse("expected a string");
  return found->value.get<std::string>();
}

absl::Status JsonFields::Done() const {
  for (const auto& [key, value] : at_.value.items()) {
    if (!seen_.contains(key)) {
      return at_.Child(key, value)
          .Refuse("this key is not known here, and it may change the result");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> ReadJsonFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFound("{}: no such file, or it cannot be read", path);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (IsLfsPointer(text)) return Invalid("{} {}", path, kLfsPointerMessage);
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    return Invalid("{} is not JSON: {}", path, error.what());
  }
}

}  // namespace fathom
