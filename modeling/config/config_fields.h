// modeling/config/config_fields.h: reads one object of a configuration key by key and reports the
// keys that were not read. The first error is kept: later reads return a default, and Finish()
// returns the error. Not thread-safe. The reader lives for one parse and refers to the object that
// it was made from.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "common/json.h"

namespace fathom {

// For config.json and generation_config.json, each with its overrides.
inline constexpr JsonLimits kConfigLimits = {
    .bytes_max = 1 << 20, .depth_max = 16, .values_max = 100'000};

// An empty object, array or string.
struct EmptyValue {};

// A key that does not change a result: with any value (monostate), or only with this value.
struct HarmlessKey {
  std::string_view key;
  std::variant<std::monostate, bool, double, std::string_view, EmptyValue> only = {};
};

class ConfigFields {
 public:
  // `path` precedes keys in messages, for example "rope_scaling."; it is "" for the top object.
  explicit ConfigFields(const JsonValue::Object& object, std::string path = "");

  // The value of `key`, which then counts as read; nullptr if it is absent or null.
  const JsonValue* Take(std::string_view key);
  // Whether the object has the key; its value may be null.
  bool Has(std::string_view key) const;

  // A required integer in [min, max]. IntOr returns `fallback` for an absent key.
  int32_t Int(std::string_view key, int32_t min, int32_t max);
  int32_t IntOr(std::string_view key, int32_t fallback, int32_t min, int32_t max);
  // A required number in [min, max]. RealOr returns `fallback` for an absent key.
  double Real(std::string_view key, double min, double max);
  double RealOr(std::string_view key, double fallback, double min, double max);
  bool BoolOr(std::string_view key, bool fallback);
  std::string StringOr(std::string_view key, std::string_view fallback);
  // A token id or a list of them, each in [0, vocab); empty if absent. Repeated ids are dropped.
  std::vector<int32_t> Ids(std::string_view key, int32_t vocab);

  // Refuses any value other than `value`; an absent key is accepted. `why` says what is supported.
  void MustBe(std::string_view key, bool value, std::string_view why);

  // Records an error about `key` if there was none before.
  void Refuse(std::string_view key, std::string_view message);
  // Records the error that Finish() of another reader gave, whose object lies inside this one.
  void Adopt(const absl::Status& status);

  // Returns the first error. Without one, returns an error about a key of `harmless` with a value
  // that it may not have. Without that, returns an error that names all keys that are neither read,
  // nor null, nor in `harmless`. `flag` is the flag that changes keys without editing the file.
  absl::Status Finish(std::span<const HarmlessKey> harmless,
                      std::string_view flag = "--hf-overrides");

 private:
  // Refuses a value that `known` does not allow.
  void CheckHarmless(const HarmlessKey& known, const JsonValue& value);
  void RefuseUnknown(const std::vector<std::pair<std::string_view, const JsonValue*>>& unknown,
                     std::string_view flag);

  const JsonValue::Object& object_;
  const std::string path_;
  std::set<std::string, std::less<>> read_;
  absl::Status error_;
};

}  // namespace fathom
