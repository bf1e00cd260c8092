#include "router/frontend/http/json_writer.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

namespace fathom::router {

void AppendJsonString(std::string_view text, std::string* to) {
  *to += '"';
  size_t done = 0;  // What is before it was appended.
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    to->append(text, done, i - done);
    done = i + 1;
    switch (c) {
      case '"':
        *to += "\\\"";
        break;
      case '\\':
        *to += "\\\\";
        break;
      case '\n':
        *to += "\\n";
        break;
      case '\r':
        *to += "\\r";
        break;
      case '\t':
        *to += "\\t";
        break;
      default:
        fmt::format_to(std::back_inserter(*to), "\\u{:04x}", c);
    }
  }
  to->append(text, done, text.size() - done);
  *to += '"';
}

void JsonWriter::Comma() {
  if (comma_) text_ += ',';
  comma_ = true;
}

JsonWriter& JsonWriter::Open(char bracket) {
  Comma();
  text_ += bracket;
  comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::Close(char bracket) {
  text_ += bracket;
  comma_ = true;
  return *this;
}

JsonWriter& JsonWriter::Key(std::string_view name) {
  Comma();
  AppendJsonString(name, &text_);
  text_ += ':';
  comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::String(std::string_view text) {
  Comma();
  AppendJsonString(text, &text_);
  return *this;
}

JsonWriter& JsonWriter::Int(int64_t number) {
  Comma();
  fmt::format_to(std::back_inserter(text_), "{}", number);
  return *this;
}

JsonWriter& JsonWriter::Real(float number) {
  Comma();
  fmt::format_to(std::back_inserter(text_), "{}", std::isfinite(number) ? number : -9999.0f);
  return *this;
}

JsonWriter& JsonWriter::Raw(std::string_view json) {
  Comma();
  text_ += json;
  return *this;
}

}  // namespace fathom::router
