// text/json_fields.h: reads a JSON object key by key and refuses keys that were not read. Only for
// .cc files that parse configuration, because it includes nlohmann.
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/status.h"

namespace fathom {

using Json = nlohmann::json;

// A value and the place where it was found, for messages.
struct JsonAt {
  const Json& value;
  std::string where;  // "tokenizer.json: model.vocab"

  // The error "<where> is <value>, <expected>"; a long value is cut.
  absl::Status Refuse(std::string_view expected) const;
  JsonAt Child(std::string_view key, const Json& child) const;
  JsonAt Element(size_t index) const;
};

// An object whose keys are read one by one. Done refuses the remaining keys.
class JsonFields {
 public:
  static absl::StatusOr<JsonFields> Open(const JsonAt& at);

  // The value; nullopt if the key is missing or null.
  std::optional<JsonAt> Find(const std::string& key);
  // A value of a type. If the key is missing or null: `fallback`, or an error if there is no
  // fallback.
  absl::StatusOr<bool> Bool(const std::string& key, std::optional<bool> fallback = std::nullopt);
  absl::StatusOr<std::string> String(const std::string& key,
                                     std::optional<std::string> fallback = std::nullopt);
  // Accepts the key with any value.
  void Ignore(const std::string& key) { seen_.insert(key); }
  // Returns an error if a key was not read.
  absl::Status Done() const;

  const JsonAt& at() const { return at_; }

 private:
  explicit JsonFields(const JsonAt& at) : at_(at) {}
  absl::Status Missing(const std::string& key, std::string_view type) const;

  JsonAt at_;
  std::set<std::string> seen_;
};

// Parses a whole file. NOT_FOUND if the file does not exist, INVALID_ARGUMENT if it is not JSON;
// both name the file.
absl::StatusOr<Json> ReadJsonFile(const std::string& path);

}  // namespace fathom
