#include "text/jinja/value.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "common/check.h"

namespace fathom::router::jinja {
namespace {

size_t SequenceLength(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xE0) return 2;
  return lead < 0xF0 ? 3 : 4;
}

uint32_t Decode(std::string_view text, size_t* size) {
  const auto lead = static_cast<unsigned char>(text[0]);
  *size = std::min(SequenceLength(lead), text.size());
  if (*size == 1) return lead;
  uint32_t code = lead & (0xFFu >> (*size + 1));
  for (size_t i = 1; i < *size; ++i)
    code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3Fu);
  return code;
}

void AppendJsonString(const std::string& text, std::string* out) {
  *out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      case '\b':
        *out += "\\b";
        break;
      case '\f':
        *out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          *out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          *out += c;
        }
    }
  }
  *out += '"';
}

std::string ReprString(const std::string& text) {
  const bool double_quoted =
      text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char quote = double_quoted ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\\' || c == quote) {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + quote;
}

}  // namespace

std::vector<std::string_view> CodePoints(std::string_view text) {
  std::vector<std::string_view> points;
  points.reserve(text.size());
  while (!text.empty()) {
    const size_t size = std::min(SequenceLength(static_cast<unsigned char>(text[0])), text.size());
    points.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return points;
}

bool IsSpaceAt(std::string_view text, size_t* size) {
  const uint32_t c = Decode(text, size);
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, end - buffer);
  const size_t e = text.find('e');
  const int exponent = std::stoi(std::string(text.substr(e + 1)));
  if (exponent < -4 || exponent >= 16) {
    return fmt::format("{}e{}{:02d}", text.substr(0, e), exponent < 0 ? '-' : '+',
                       std::abs(exponent));
  }
  std::string plain(
      buffer, std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr);
  if (plain.find('.') == std::string::npos) plain += ".0";
  return plain;
}

double Value::AsDouble() const {
  if (const auto* b = std::get_if<bool>(&data_)) return *b ? 1 : 0;
  if (const auto* i = std::get_if<int64_t>(&data_)) return static_cast<double>(*i);
  FATHOM_CHECK(is_float());
  return std::get<double>(data_);
}

int64_t Value::AsInt() const {
  if (const auto* b = std::get_if<bool>(&data_)) return *b ? 1 : 0;
  FATHOM_CHECK(is_int());
  return std::get<int64_t>(data_);
}

bool Value::Truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return AsDouble() != 0;
  if (const std::string* s = string()) return !s->empty();
  if (const List* l = list()) return !l->empty();
  if (const Map* m = map()) return !m->empty();
  return true;
}

bool Value::operator==(const Value& other) const {
  if (is_number() && other.is_number()) {
    if (!is_float() && !other.is_float()) return AsInt() == other.AsInt();
    return AsDouble() == other.AsDouble();
  }
  if (is_undefined() || other.is_undefined()) return is_undefined() && other.is_undefined();
  if (is_none() || other.is_none()) return is_none() && other.is_none();
  if (is_string() && other.is_string()) return *string() == *other.string();
  if (list() != nullptr && other.list() != nullptr) return *list() == *other.list();
  if (map() != nullptr && other.map() != nullptr) {
    if (map()->size() != other.map()->size()) return false;
    for (const auto& [key, value] : *map()) {
      const Value* theirs = other.Find(key);
      if (theirs == nullptr || !(value == *theirs)) return false;
    }
    return true;
  }
  return name_space() != nullptr && name_space() == other.name_space();
}

const Value* Value::Find(std::string_view key) const {
  if (const Map* m = map()) {
    for (const auto& [name, value] : *m) {
      if (name == key) return &value;
    }
  }
  if (const Namespace* n = name_space()) {
    if (auto it = n->find(key); it != n->end()) return &it->second;
  }
  return nullptr;
}

std::string Value::Text() const {
  if (is_undefined()) return "";
  if (const std::string* s = string()) return *s;
  return Repr();
}

std::string Value::Repr() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "None";
  if (is_bool()) return AsInt() != 0 ? "True" : "False";
  if (is_int()) return std::to_string(AsInt());
  if (is_float()) return FloatRepr(AsDouble());
  if (const std::string* s = string()) return ReprString(*s);
  std::string out;
  if (const List* l = list()) {
    for (const Value& item : *l) out += (out.empty() ? "" : ", ") + item.Repr();
    return "[" + out + "]";
  }
  if (const Map* m = map()) {
    for (const auto& [key, value] : *m)
      out += (out.empty() ? "" : ", ") + ReprString(key) + ": " + value.Repr();
    return "{" + out + "}";
  }
  throw TemplateError(fmt::format("a {} cannot be printed", TypeName()));
}

std::string Value::Json(int indent) const {
  std::string out;
  AppendJson(indent, 0, &out);
  return out;
}

void Value::AppendJson(int indent, int depth, std::string* out) const {
  const auto separate = [&](bool first, int level) {
    if (!first) *out += indent < 0 ? ", " : ",";
    if (indent >= 0) *out += "\n" + std::string(static_cast<size_t>(indent) * level, ' ');
  };
  if (is_none()) {
    *out += "null";
  } else if (is_bool()) {
    *out += AsInt() != 0 ? "true" : "false";
  } else if (is_number()) {
    *out += Repr();
  } else if (const std::string* s = string()) {
    AppendJsonString(*s, out);
  } else if (const List* l = list()) {
    *out += '[';
    bool first = true;
    for (const Value& item : *l) {
      separate(std::exchange(first, false), depth + 1);
      item.AppendJson(indent, depth + 1, out);
    }
    if (!l->empty() && indent >= 0)
      *out += "\n" + std::string(static_cast<size_t>(indent) * depth, ' ');
    *out += ']';
  } else if (const Map* m = map()) {
    *out += '{';
    bool first = true;
    for (const auto& [key, value] : *m) {
      separate(std::exchange(first, false), depth + 1);
      AppendJsonString(key, out);
      *out += ": ";
      value.AppendJson(indent, depth + 1, out);
    }
    if (!m->empty() && indent >= 0)
      *out += "\n" + std::string(static_cast<size_t>(indent) * depth, ' ');
    *out += '}';
  } else {
    throw TemplateError(fmt::format("tojson: a {} has no JSON form", TypeName()));
  }
}

std::string Value::TypeName() const {
  if (const Undefined* u = undefined())
    return u->name.empty() ? "undefined value" : "undefined '" + u->name + "'";
  if (is_none()) return "None";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_string()) return "string";
  if (list() != nullptr) return "list";
  if (map() != nullptr) return "mapping";
  return name_space() != nullptr ? "namespace" : "function";
}

}  // namespace fathom::router::jinja
