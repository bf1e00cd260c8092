// text/jinja/json.h: values as JSON text and back, as Python's json module does it. Literal bytes
// stay literal (str.h): escapes are as literal as what they stand for. Pure; throws TemplateError.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "text/jinja/value.h"

namespace fathom::router::jinja {

inline constexpr int kJsonDepthMax = 64;  // Of JSON that is read.

// The arguments of json.dumps.
struct JsonFormat {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<Str> indent = std::nullopt;  // Of each level; absent: all in one line.
  Str item_separator = Str(", ");
  Str key_separator = Str(": ");
};

// Throws where a value has no JSON form, or where the text would be longer than `bytes_max`.
Str WriteJson(const Value& value, const JsonFormat& format, int64_t bytes_max);

struct JsonError : TemplateError {
  JsonError(const std::string& what, bool deep) : TemplateError(what), too_deep(deep) {}
  bool too_deep;  // Deeper than kJsonDepthMax; else it is not JSON.
};

// Keeps the order of keys (of equal ones: the place of the first, the value of the last) and every
// digit of an integer. `literal`: strings and keys are a client's. Throws JsonError.
Value ReadJson(std::string_view text, bool literal);

}  // namespace fathom::router::jinja
