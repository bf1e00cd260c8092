// modeling/config/config_fields.h: reads one object of a configuration key by key and knows in the
// end which keys nobody read. The first error sticks: readers go on with a default, and Finish()
// tells. Not thread-safe; lives for one parse and refers to the object that it was made of.
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

namespace fathom::worker {

// Of config.json and generation_config.json, each with its overrides.
inline constexpr JsonLimits kConfigLimits = {
    .bytes_max = 1 << 20, .depth_max = 16, .values_max = 100'000};

// An empty object, array or string.
struct EmptyValue {};

// A key that does not change a result: whatever its value (monostate), or as long as it has this
// one.
struct HarmlessKey {
  std::string_view key;
  std::variant<std::monostate, bool, double, std::string_view, EmptyValue> only = {};
};

class ConfigFields {
 public:
  // `path` goes before keys in messages, e.g. "rope_scaling."; "" at the top.
  explicit ConfigFields(const JsonValue::Object& object, std::string path = "");

  // The value of `key`, now read; nullptr when it is absent or null.
  const JsonValue* Take(std::string_view key);
  // Whether the key is there, be it null.
  bool Has(std::string_view key) const;

  // A required integer in [min, max]; IntOr's may be absent.
  int32_t Int(std::string_view key, int32_t min, int32_t max);
  int32_t IntOr(std::string_view key, int32_t fallback, int32_t min, int32_t max);
  // A required number in [min, max]; RealOr's may be absent.
  double Real(std::string_view key, double min, double max);
  double RealOr(std::string_view key, double fallback, double min, double max);
  bool BoolOr(std::string_view key, bool fallback);
  std::string StringOr(std::string_view key, std::string_view fallback);
  // A token id or a list of them, each in [0, vocab); empty when absent. Each id is kept once.
  std::vector<int32_t> Ids(std::string_view key, int32_t vocab);

  // Absent or `value`: anything else is refused with `why`, which says what is supported.
  void MustBe(std::string_view key, bool value, std::string_view why);

  // Records an error about `key` unless there was one before.
  void Refuse(std::string_view key, std::string_view message);
  // The same with what another reader's Finish() gave, of an object inside of this one.
  void Adopt(const absl::Status& status);

  // The first error; else an error about a key of `harmless` with another value than it may have;
  // else one that names all keys that are neither read, nor null, nor in `harmless`.
  // `flag`: what changes keys without touching the file.
  absl::Status Finish(std::span<const HarmlessKey> harmless,
                      std::string_view flag = "--hf-overrides");

 private:
  // Refuses a value that `known` does not admit.
  void CheckHarmless(const HarmlessKey& known, const JsonValue& value);
  void RefuseUnknown(const std::vector<std::pair<std::string_view, const JsonValue*>>& unknown,
                     std::string_view flag);

  const JsonValue::Object& object_;
  const std::string path_;
  std::set<std::string, std::less<>> read_;
  absl::Status error_;
};

}  // namespace fathom::worker
