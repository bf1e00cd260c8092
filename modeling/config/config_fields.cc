#include "modeling/config/config_fields.h"

#include <algorithm>

#include "common/status.h"

namespace fathom {
namespace {

std::optional<double> AsNumber(const JsonValue& value) {
  if (const int64_t* integer = value.AsInt()) return static_cast<double>(*integer);
  if (const double* real = value.AsReal()) return *real;
  return std::nullopt;
}

bool IsEmpty(const JsonValue& value) {
  return (value.AsObject() != nullptr && value.AsObject()->empty()) ||
         (value.AsArray() != nullptr && value.AsArray()->empty()) ||
         (value.AsString() != nullptr && value.AsString()->empty());
}

}  // namespace

ConfigFields::ConfigFields(const JsonValue::Object& object, std::string path)
    : object_(object), path_(std::move(path)) {}

const JsonValue* ConfigFields::Take(std::string_view key) {
  read_.emplace(key);
  for (const auto& [name, value] : object_) {
    if (name == key) return value.is_null() ? nullptr : &value;
  }
  return nullptr;
}

bool ConfigFields::Has(std::string_view key) const {
  return std::any_of(object_.begin(), object_.end(),
                     [&](const auto& field) { return field.first == key; });
}

void ConfigFields::Refuse(std::string_view key, std::string_view message) {
  if (error_.ok()) error_ = Invalid("{}{} {}", path_, key, message);
}

void ConfigFields::Adopt(const absl::Status& status) {
  if (error_.ok()) error_ = status;
}

int32_t ConfigFields::Int(std::string_view key, int32_t min, int32_t max) {
  if (Take(key) == nullptr) {
    Refuse(key, fmt::format("is missing; expected an integer from {} to {}", min, max));
  }
  return IntOr(key, min, min, max);
}

int32_t ConfigFields::IntOr(std::string_view key, int32_t fallback, int32_t min, int32_t max) {
  const JsonValue* value = Take(key);
  if (value == nullptr) return fallback;
  const int64_t* integer = value->AsInt();
  if (integer == nullptr || *integer < min || *integer > max) {
    Refuse(key, fmt::format("is {}; expected an integer from {} to {}", value->Brief(), min, max));
    return fallback;
  }
  return static_cast<int32_t>(*integer);
}

double ConfigFields::Real(std::string_view key, double min, double max) {
  if (Take(key) == nullptr) {
    Refuse(key, fmt::format("is missing; expected a number from {} to {}", min, max));
  }
  return RealOr(key, min, min, max);
}

double ConfigFields::RealOr(std::string_view key, double fallback, double min, double max) {
  const JsonValue* value = Take(key);
  if (value == nullptr) return fallback;
  const std::optional<double> number = AsNumber(*value);
  if (!number || !(*number >= min && *number <= max)) {
    Refuse(key, fmt::format("is {}; expected a number from {} to {}", value->Brief(), min, max));
    return fallback;
  }
  return *number;
}

bool ConfigFields::BoolOr(std::string_view key, bool fallback) {
  const JsonValue* value = Take(key);
  if (value == nullptr) return fallback;
  if (const bool* boolean = value->AsBool()) return *boolean;
  Refuse(key, fmt::format("is {}; expected true or false", value->Brief()));
  return fallback;
}

std::string ConfigFields::StringOr(std::string_view key, std::string_view fallback) {
  const JsonValue* value = Take(key);
  if (value == nullptr) return std::string(fallback);
  if (const std::string* text = value->AsString()) return *text;
  Refuse(key, fmt::format("is {}; expected a string", value->Brief()));
  return std::string(fallback);
}

std::vector<int32_t> ConfigFields::Ids(std::string_view key, int32_t vocab) {
  const JsonValue* value = Take(key);
  if (value == nullptr) return {};
  const JsonValue::Array one = {*value};
  const JsonValue::Array& items = value->AsArray() != nullptr ? *value->AsArray() : one;
  std::vector<int32_t> ids;
  for (const JsonValue& item : items) {
    const int64_t* id = item.AsInt();
    if (id == nullptr || *id < 0 || *id >= vocab) {
      Refuse(key, fmt::format("is {}; expected token ids from 0 to {}", value->Brief(), vocab - 1));
      return {};
    }
    const auto token = static_cast<int32_t>(*id);
    if (std::find(ids.begin(), ids.end(), token) == ids.end()) ids.push_back(token);
  }
  return ids;
}

void ConfigFields::MustBe(std::string_view key, bool value, std::string_view why) {
  const JsonValue* found = Take(key);
  if (found == nullptr) return;
  if (found->AsBool() == nullptr || *found->AsBool() != value) {
    Refuse(key, fmt::format("is {}; {}", found->Brief(), why));
  }
}

void ConfigFields::CheckHarmless(const HarmlessKey& known, const JsonValue& value) {
  if (const bool* only = std::get_if<bool>(&known.only)) {
    if (value.AsBool() != nullptr && *value.AsBool() == *only) return;
    Refuse(known.key, fmt::format("is {}; only {} is supported", value.Brief(), *only));
  } else if (const double* number = std::get_if<double>(&known.only)) {
    if (AsNumber(value) == *number) return;
    Refuse(known.key, fmt::format("is {}; only {} is supported", value.Brief(), *number));
  } else if (const auto* text = std::get_if<std::string_view>(&known.only)) {
    if (value.AsString() != nullptr && *value.AsString() == *text) return;
    Refuse(known.key, fmt::format("is {}; only \"{}\" is supported", value.Brief(), *text));
  } else if (std::holds_alternative<EmptyValue>(known.only)) {
    if (IsEmpty(value)) return;
    Refuse(known.key, fmt::format("is {}; only an empty one is supported", value.Brief()));
  }
}

void ConfigFields::RefuseUnknown(
    const std::vector<std::pair<std::string_view, const JsonValue*>>& unknown,
    std::string_view flag) {
  std::string named, without;
  for (const auto& [key, value] : unknown) {
    const bool last = key == unknown.back().first;
    if (!named.empty()) named += last ? " and " : ", ";
    named += fmt::format("{}{} = {}", path_, key, value->Brief());
    without += fmt::format("{}\"{}\": null", without.empty() ? "" : ", ", key);
  }
  const bool one = unknown.size() == 1;
  error_ = Invalid(
      "{} {} not known here, and a key that nobody reads may change the result; if {} not, remove "
      "{}{}",
      named, one ? "is" : "are", one ? "it does" : "they do", one ? "it" : "them",
      path_.empty() ? fmt::format(", or give {} '{{{}}}'", flag, without) : "");
}

absl::Status ConfigFields::Finish(std::span<const HarmlessKey> harmless, std::string_view flag) {
  std::vector<std::pair<std::string_view, const JsonValue*>> unknown;
  for (const auto& [key, value] : object_) {
    if (value.is_null() || read_.contains(key)) continue;
    const auto known = std::find_if(harmless.begin(), harmless.end(),
                                    [&](const HarmlessKey& entry) { return entry.key == key; });
    if (known == harmless.end()) {
      unknown.emplace_back(key, &value);
    } else {
      CheckHarmless(*known, value);
    }
  }
  if (error_.ok() && !unknown.empty()) RefuseUnknown(unknown, flag);
  return error_;
}

}  // namespace fathom
