#include "router/frontend/http/field_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "common/flag_names.h"
#include "common/reason.h"
#include "common/utf8.h"
#include "router/frontend/http/json_writer.h"

namespace fathom::router {
namespace {

void AppendValue(const JsonValue& value, std::string* to) {
  if (value.is_null()) {
    *to += "null";
  } else if (const bool* boolean = value.AsBool()) {
    *to += *boolean ? "true" : "false";
  } else if (const int64_t* integer = value.AsInt()) {
    *to += fmt::format("{}", *integer);
  } else if (const double* real = value.AsReal()) {
    // As Python writes it: 1.0 stays a real number.
    const std::string text = fmt::format("{}", *real);
    *to += text;
    if (text.find_first_of(".en") == std::string::npos) *to += ".0";
  } else if (const std::string* string = value.AsString()) {
    AppendJsonString(*string, to);
  } else if (const JsonValue::Array* array = value.AsArray()) {
    *to += '[';
    for (size_t i = 0; i < array->size(); ++i) {
      if (i > 0) *to += ", ";
      AppendValue((*array)[i], to);
    }
    *to += ']';
  } else {
    *to += '{';
    bool first = true;
    for (const auto& [key, member] : *value.AsObject()) {
      if (!std::exchange(first, false)) *to += ", ";
      AppendJsonString(key, to);
      *to += ": ";
      AppendValue(member, to);
    }
    *to += '}';
  }
}

// The integer that a number is; 3.0 is one too.
std::optional<int64_t> IntegerOf(const JsonValue& value) {
  if (const int64_t* integer = value.AsInt()) return *integer;
  const double* real = value.AsReal();
  if (real == nullptr || *real != std::floor(*real) || std::abs(*real) > 9e15) return std::nullopt;
  return static_cast<int64_t>(*real);
}

absl::Status WrongType(const std::string& path, const JsonValue& value, std::string_view wanted) {
  return WithReason(Invalid("{} is {}; it must be {}", path, value.Brief(), wanted),
                    Reason::kOutOfRange, path);
}

}  // namespace

std::string ToJsonText(const JsonValue& value) {
  std::string text;
  AppendValue(value, &text);
  return text;
}

absl::StatusOr<TokenId> TokenIdOf(const JsonValue& value, const std::string& path) {
  const std::optional<int64_t> id = IntegerOf(value);
  if (id && *id >= std::numeric_limits<TokenId>::min() &&
      *id <= std::numeric_limits<TokenId>::max()) {
    return static_cast<TokenId>(*id);
  }
  return WrongType(path, value, "a token id, which is an integer");
}

FieldReader::FieldReader(const JsonValue& value, std::string path) : path_(std::move(path)) {
  object_ = value.AsObject();
  if (object_ == nullptr) {
    error_ = WrongType(path_.empty() ? "the body" : path_, value, "a JSON object");
  }
}

std::string FieldReader::PathOf(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

const JsonValue* FieldReader::Find(std::string_view name) {
  if (object_ == nullptr) return nullptr;
  known_.emplace_back(name);
  for (const auto& [key, value] : *object_) {
    if (key == name) return value.is_null() ? nullptr : &value;
  }
  return nullptr;
}

void FieldReader::Fail(absl::Status status) {
  if (error_.ok()) error_ = std::move(status);
}

void FieldReader::FailType(std::string_view name, const JsonValue& value, std::string_view wanted) {
  Fail(WrongType(PathOf(name), value, wanted));
}

void FieldReader::Take(std::string_view name, bool* to) {
  const JsonValue* value = Find(name);
  if (value == nullptr) return;
  if (const bool* boolean = value->AsBool()) {
    *to = *boolean;
  } else {
    FailType(name, *value, "true or false");
  }
}

void FieldReader::Take(std::string_view name, std::optional<bool>* to) {
  bool value = false;
  if (!Has(name)) return;
  Take(name, &value);
  *to = value;
}

template <class T>
void FieldReader::TakeInteger(std::string_view name, std::optional<T>* to) {
  const JsonValue* value = Find(name);
  if (value == nullptr) return;
  const std::optional<int64_t> integer = IntegerOf(*value);
  if (integer && *integer >= std::numeric_limits<T>::min() &&
      *integer <= std::numeric_limits<T>::max()) {
    *to = static_cast<T>(*integer);
  } else {
    FailType(name, *value,
             sizeof(T) == 4 ? "an integer of at most 32 bits" : "an integer of at most 64 bits");
  }
}

void FieldReader::Take(std::string_view name, std::optional<int32_t>* to) { TakeInteger(name, to); }
void FieldReader::Take(std::string_view name, std::optional<int64_t>* to) { TakeInteger(name, to); }

void FieldReader::Take(std::string_view name, std::optional<float>* to) {
  const JsonValue* value = Find(name);
  if (value == nullptr) return;
  if (const int64_t* integer = value->AsInt()) {
    *to = static_cast<float>(*integer);
  } else if (const double* real = value->AsReal()) {
    // Beyond the range of a float it is beyond every limit too.
    constexpr double kMax = std::numeric_limits<float>::max();
    *to = static_cast<float>(std::clamp(*real, -kMax, kMax));
  } else {
    FailType(name, *value, "a number");
  }
}

void FieldReader::Take(std::string_view name, std::string* to) {
  const JsonValue* value = Find(name);
  if (value == nullptr) return;
  if (const std::string* text = value->AsString()) {
    *to = *text;
  } else {
    FailType(name, *value, "a string");
  }
}

void FieldReader::Take(std::string_view name, std::optional<std::string>* to) {
  std::string text;
  if (!Has(name)) return;
  Take(name, &text);
  *to = std::move(text);
}

void FieldReader::Take(std::string_view name, std::vector<TokenId>* to) {
  const JsonValue::Array* array = Array(name);
  if (array == nullptr) return;
  to->reserve(array->size());
  for (size_t i = 0; i < array->size() && ok(); ++i) {
    const auto id = TokenIdOf((*array)[i], fmt::format("{}[{}]", PathOf(name), i));
    if (!id.ok()) return Fail(id.status());
    to->push_back(*id);
  }
}

void FieldReader::Take(std::string_view name, std::vector<std::string>* to) {
  const JsonValue::Array* array = Array(name);
  if (array == nullptr) return;
  for (size_t i = 0; i < array->size(); ++i) {
    const std::string* text = (*array)[i].AsString();
    if (text == nullptr) {
      return Fail(WrongType(fmt::format("{}[{}]", PathOf(name), i), (*array)[i], "a string"));
    }
    to->push_back(*text);
  }
}

const JsonValue::Array* FieldReader::Array(std::string_view name) {
  const JsonValue* value = Find(name);
  if (value == nullptr) return nullptr;
  if (value->AsArray() == nullptr) FailType(name, *value, "a list");
  return value->AsArray();
}

const JsonValue::Object* FieldReader::Object(std::string_view name) {
  const JsonValue* value = Find(name);
  if (value == nullptr) return nullptr;
  if (value->AsObject() == nullptr) FailType(name, *value, "a JSON object");
  return value->AsObject();
}

void FieldReader::Refuse(std::string_view name, std::string_view instead) {
  if (!Has(name)) return;
  const std::string path = PathOf(name);
  Fail(WithReason(Unimplemented("{} is not supported by this version; {}", path, instead),
                  Reason::kNotImplemented, path));
}

void FieldReader::Only(std::string_view name, std::initializer_list<std::string_view> values,
                       std::string_view instead) {
  const JsonValue* value = Find(name);
  if (value == nullptr) return;
  const std::string text = ToJsonText(*value);
  if (std::ranges::find(values, text) != values.end()) return;
  const std::string path = PathOf(name);
  Fail(WithReason(Unimplemented("{} is {}; this version supports only {}; {}", path, value->Brief(),
                                fmt::join(values, " and "), instead),
                  Reason::kNotImplemented, path));
}

absl::Status FieldReader::Finish() {
  if (!error_.ok() || object_ == nullptr) return error_;
  for (const auto& [key, value] : *object_) {
    if (std::ranges::find(known_, key) != known_.end()) continue;
    const std::string nearest = NearestName(key, known_);
    const std::string path = PathOf(JsonValue(key).Brief());
    return WithReason(
        Invalid("{} is a field that this server does not know; {}", path,
                nearest.empty() ? "leave it out" : fmt::format("did you mean {}?", nearest)),
        Reason::kUnknownField, PathOf(Shortened(key, 64)));
  }
  return absl::OkStatus();
}

}  // namespace fathom::router
