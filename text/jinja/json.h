// text/jinja/json.h: converts values to JSON text and back, like Python's json module. Literal
// bytes stay literal (str.h): an escape is literal if its character is. Pure; throws TemplateError.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "text/jinja/value.h"

namespace fathom::jinja {

inline constexpr int kJsonDepthMax = 64;  // The depth limit for JSON that is read.

// The arguments of json.dumps.
struct JsonFormat {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<Str> indent = std::nullopt;  // The indent of each level; absent: one line.
  Str item_separator = Str(", ");
  Str key_separator = Str(": ");
};

// Throws if a value has no JSON form or if the text would be longer than `bytes_max`.
Str WriteJson(const Value& value, const JsonFormat& format, int64_t bytes_max);

struct JsonError : TemplateError {
  JsonError(const std::string& what, bool deep) : TemplateError(what), too_deep(deep) {}
  bool too_deep;  // Deeper than kJsonDepthMax; else it is not JSON.
};

// Keeps the order of keys and every digit of an integer. Of equal keys, the first gives the place
// and the last gives the value. `literal`: strings and keys come from a client. Throws JsonError.
Value ReadJson(std::string_view text, bool literal);

}  // namespace fathom::jinja
