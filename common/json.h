// common/json.h: parses strict JSON into a small tree, for configurations, indexes and safetensors
// headers. Refused (INVALID_ARGUMENT): duplicate keys in one object, numbers outside int64 or
// double, invalid UTF-8, and anything above the limits, which are checked while parsing. Pure; any
// thread. The parser is nlohmann's; only json.cc includes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace fathom {

struct JsonLimits {
  size_t bytes_max = 1 << 20;
  int32_t depth_max = 16;        // Nested objects and arrays.
  int64_t values_max = 100'000;  // All values of the document.
};

class JsonValue {
 public:
  using Array = std::vector<JsonValue>;
  using Object = std::vector<std::pair<std::string, JsonValue>>;  // In the document's order.

  JsonValue() = default;  // null
  template <class T>
  explicit JsonValue(T value) : value_(std::move(value)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  // Each returns nullptr if the value is of another kind. A number is an integer if it has no
  // fraction and no exponent.
  const bool* AsBool() const { return std::get_if<bool>(&value_); }
  const int64_t* AsInt() const { return std::get_if<int64_t>(&value_); }
  const double* AsReal() const { return std::get_if<double>(&value_); }
  const std::string* AsString() const { return std::get_if<std::string>(&value_); }
  const Array* AsArray() const { return std::get_if<Array>(&value_); }
  const Object* AsObject() const { return std::get_if<Object>(&value_); }
  Array* AsArray() { return std::get_if<Array>(&value_); }
  Object* AsObject() { return std::get_if<Object>(&value_); }

  // The value as JSON, shortened to about 60 characters, for messages.
  std::string Brief() const;

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

// For a Git LFS pointer instead of the file, the error says so.
absl::StatusOr<JsonValue> ParseJson(std::string_view text, const JsonLimits& limits);

// `text` changed by `patch`, a merge patch (RFC 7396), as one line of JSON with the keys in their
// order. Both are parsed like in ParseJson; the first error is returned.
absl::StatusOr<std::string> MergePatch(std::string_view text, std::string_view patch,
                                       const JsonLimits& limits);

}  // namespace fathom
