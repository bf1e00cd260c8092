// router/frontend/http/field_reader.h: reads the fields of one JSON object strictly: each field by
// its name and type, and at the end nothing may be left over. null counts as absent. The first
// error counts; later calls do nothing harmful. Pure.
//
// Errors are INVALID_ARGUMENT with ErrorDetail{reason, field}: OUT_OF_RANGE (a wrong type or
// number), UNKNOWN_FIELD, or UNIMPLEMENTED with NOT_IMPLEMENTED (Refuse and Only). They name the
// field with its path, e.g. "messages[2].content".
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/status.h"
#include "common/types.h"

namespace fathom::router {

class FieldReader {
 public:
  // REQUIRES: `value` outlives the reader. `path`: of the object; empty: the body itself.
  FieldReader(const JsonValue& value, std::string path);

  // "stream", or "messages[2].content" in an object with a path.
  std::string PathOf(std::string_view name) const;

  // The field is there and not null; it then counts as read.
  bool Has(std::string_view name) { return Find(name) != nullptr; }
  // nullptr: absent.
  const JsonValue* Find(std::string_view name);

  // A field that is absent leaves *to as it is.
  void Take(std::string_view name, bool* to);
  void Take(std::string_view name, std::optional<bool>* to);
  void Take(std::string_view name, std::optional<int32_t>* to);
  void Take(std::string_view name, std::optional<int64_t>* to);
  void Take(std::string_view name, std::optional<float>* to);
  void Take(std::string_view name, std::string* to);
  void Take(std::string_view name, std::optional<std::string>* to);
  void Take(std::string_view name, std::vector<TokenId>* to);
  void Take(std::string_view name, std::vector<std::string>* to);
  // nullptr: absent, or of another type, which is an error.
  const JsonValue::Array* Array(std::string_view name);
  const JsonValue::Object* Object(std::string_view name);

  // The field is known, but this server does not have what it asks for. `instead`: what to do.
  void Refuse(std::string_view name, std::string_view instead);
  // The field may have one of these values (as JSON: "\"auto\"", "false", "1"), which ask for
  // nothing that this server lacks.
  void Only(std::string_view name, std::initializer_list<std::string_view> values,
            std::string_view instead);
  // The field decides nothing that this server does, whatever value it has.
  void Accept(std::string_view name) { Find(name); }

  void Fail(absl::Status status);
  // "NAME is VALUE; it must be WANTED".
  void FailType(std::string_view name, const JsonValue& value, std::string_view wanted);

  bool ok() const { return error_.ok(); }
  // The first error, or UNKNOWN_FIELD for the first field that was not asked for.
  absl::Status Finish();

 private:
  template <class T>
  void TakeInteger(std::string_view name, std::optional<T>* to);

  const std::string path_;
  const JsonValue::Object* object_ = nullptr;
  std::vector<std::string> known_;
  absl::Status error_;
};

// A token id of a list: an integer of 32 bits. INVALID_ARGUMENT names `path`.
absl::StatusOr<TokenId> TokenIdOf(const JsonValue& value, const std::string& path);

// The value as JSON text with its members in their order.
std::string ToJsonText(const JsonValue& value);

}  // namespace fathom::router
