#include "common/json.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "common/lfs_pointer.h"
#include "common/status.h"
#include "common/utf8.h"

namespace fathom {
namespace {

constexpr size_t kBriefBytes = 60;

// Builds the tree from nlohmann's events. A handler that returns false stops the parser; `error_`
// is then set.
class TreeBuilder {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  explicit TreeBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool null() { return Add(JsonValue()); }
  bool boolean(bool value) { return Add(JsonValue(value)); }
  bool number_integer(number_integer_t value) { return Add(JsonValue(int64_t{value})); }
  bool number_unsigned(number_unsigned_t value) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fail(Invalid("the number {} is too large", value));
    }
    return Add(JsonValue(static_cast<int64_t>(value)));
  }
  bool number_float(number_float_t value, const string_t&) { return Add(JsonValue(value)); }
  bool string(string_t& value) { return Add(JsonValue(std::move(value))); }
  bool binary(binary_t&) { return Fail(Invalid("binary values are not JSON")); }
  bool start_object(size_t) { return Open(JsonValue(JsonValue::Object())); }
  bool start_array(size_t) { return Open(JsonValue(JsonValue::Array())); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }
  bool key(string_t& name) {
    if (!keys_.back().insert(name).second) {
      return Fail(Invalid("the key \"{}\" appears twice in one object; keep one of them", name));
    }
    open_.back()->AsObject()->emplace_back(std::move(name), JsonValue());
    return true;
  }
  bool parse_error(size_t position, const std::string& token, const nlohmann::json::exception&) {
    return Fail(Invalid("not valid JSON at byte {}, near {}", position, JsonValue(token).Brief()));
  }

  absl::StatusOr<JsonValue> Finish() && {
    if (!error_.ok()) return error_;
    return std::move(root_);
  }

 private:
  bool Fail(absl::Status status) {
    if (error_.ok()) error_ = std::move(status);
    return false;
  }

  // Stores `value` at the current place of the document and returns a pointer to it; nullptr after
  // an error.
  JsonValue* Place(JsonValue&& value) {
    if (++values_ > limits_.values_max) {
      Fail(Invalid("more than {} values", limits_.values_max));
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (JsonValue::Array* array = open_.back()->AsArray()) {
      return &array->emplace_back(std::move(value));
    }
    JsonValue& member = open_.back()->AsObject()->back().second;
    member = std::move(value);
    return &member;
  }

  bool Add(JsonValue&& value) { return Place(std::move(value)) != nullptr; }

  bool Open(JsonValue&& value) {
    if (static_cast<int32_t>(open_.size()) >= limits_.depth_max) {
      return Fail(Invalid("nested deeper than {}", limits_.depth_max));
    }
    JsonValue* place = Place(std::move(value));
    if (place == nullptr) return false;
    open_.push_back(place);  // Stays valid: a parent does not grow while its last child is open.
    keys_.emplace_back();
    return true;
  }

  bool Close() {
    open_.pop_back();
    keys_.pop_back();
    return true;
  }

  const JsonLimits limits_;
  JsonValue root_;
  std::vector<JsonValue*> open_;
  std::vector<absl::flat_hash_set<std::string>> keys_;  // The keys of each open container.
  int64_t values_ = 0;
  absl::Status error_;
};

}  // namespace

absl::StatusOr<JsonValue> ParseJson(std::string_view text, const JsonLimits& limits) {
  if (IsLfsPointer(text)) return Invalid("{}", kLfsPointerMessage);
  if (text.size() > limits.bytes_max) {
    return Invalid("{} bytes of JSON; the limit is {}", text.size(), limits.bytes_max);
  }
  TreeBuilder builder(limits);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return std::move(builder).Finish();
}

absl::StatusOr<std::string> MergePatch(std::string_view text, std::string_view patch,
                                       const JsonLimits& limits) {
  FATHOM_RETURN_IF_ERROR(ParseJson(text, limits).status());
  FATHOM_RETURN_IF_ERROR(ParseJson(patch, limits).status());
  // Both are valid JSON, so nothing below throws.
  auto merged = nlohmann::ordered_json::parse(text);
  merged.merge_patch(nlohmann::ordered_json::parse(patch));
  return merged.dump();
}

std::string JsonValue::Brief() const {
  std::string text;
  if (is_null()) {
    text = "null";
  } else if (const bool* boolean = AsBool()) {
    text = *boolean ? "true" : "false";
  } else if (const int64_t* integer = AsInt()) {
    text = fmt::format("{}", *integer);
  } else if (const double* real = AsReal()) {
    text = fmt::format("{}", *real);
  } else if (const std::string* string = AsString()) {
    text = nlohmann::json(*string).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  } else if (const Array* array = AsArray()) {
    text = "[";
    for (const JsonValue& item : *array) {
      if (text.size() > kBriefBytes) break;
      text += (text.size() > 1 ? ", " : "") + item.Brief();
    }
    text += "]";
  } else {
    text = "{";
    for (const auto& [key, item] : *AsObject()) {
      if (text.size() > kBriefBytes) break;
      text += (text.size() > 1 ? ", " : "") + JsonValue(key).Brief() + ": " + item.Brief();
    }
    text += "}";
  }
  return Shortened(text, kBriefBytes);
}

}  // namespace fathom
