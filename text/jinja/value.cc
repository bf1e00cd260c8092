#include "text/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
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

// The escape of a JSON string's character; empty: it stands for itself.
std::string JsonEscape(char c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    default:
      return static_cast<unsigned char>(c) < 0x20
                 ? fmt::format("\\u{:04x}", static_cast<unsigned>(c))
                 : std::string();
  }
}

// The escape of a character in Python's repr of a string in `quote`s; empty: it stands for itself.
std::string ReprEscape(char c, char quote) {
  if (c == '\n') return "\\n";
  if (c == '\r') return "\\r";
  if (c == '\t') return "\\t";
  if (c == '\\' || c == quote) return {'\\', c};
  if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
    return fmt::format("\\x{:02x}", static_cast<unsigned>(c));
  }
  return {};
}

// The string in quotes, characters escaped; escapes are as literal as what they stand for.
template <class Escape>
void AppendQuoted(const Str& str, char quote, const Escape& escape, StrBuilder* out) {
  out->Append(quote);
  str.ForEachRun([&](std::string_view run, bool literal) {
    size_t done = 0;
    for (size_t at = 0; at < run.size(); ++at) {
      const std::string escaped = escape(run[at]);
      if (escaped.empty()) continue;
      out->AppendAs(run.substr(done, at - done), literal);
      out->AppendAs(escaped, literal);
      done = at + 1;
    }
    out->AppendAs(run.substr(done), literal);
  });
  out->Append(quote);
}

void AppendJsonString(const Str& str, StrBuilder* out) { AppendQuoted(str, '"', JsonEscape, out); }

void AppendReprString(const Str& str, StrBuilder* out) {
  const std::string_view text = str.view();
  const bool double_quoted = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = double_quoted ? '"' : '\'';
  AppendQuoted(
      str, quote, [quote](char c) { return ReprEscape(c, quote); }, out);
}

// json.dumps has other words than repr for what is no number.
std::string JsonFloat(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return FloatRepr(value);
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

template <class T>
std::shared_ptr<const Value::Box<T>> Value::MakeBox(T items, int depth) {
  if (depth > kValueDepthMax) {
    throw TemplateError(fmt::format("values are nested deeper than {}", kValueDepthMax));
  }
  return std::make_shared<const Box<T>>(Box<T>{std::move(items), depth});
}

Value::Value(List v) {
  int depth = 0;
  for (const Value& item : v) depth = std::max(depth, item.Depth());
  data_ = MakeBox(std::move(v), depth + 1);
}

Value::Value(Map v) {
  int depth = 0;
  for (const auto& [key, item] : v) depth = std::max({depth, key.Depth(), item.Depth()});
  data_ = MakeBox(std::move(v), depth + 1);
}

Value::Value(Callable v) {
  const int depth = v.self != nullptr ? v.self->Depth() : 0;
  data_ = MakeBox(std::move(v), depth + 1);
}

int Value::Depth() const {
  if (const auto* list = std::get_if<std::shared_ptr<const Box<List>>>(&data_))
    return (*list)->depth;
  if (const auto* map = std::get_if<std::shared_ptr<const Box<Map>>>(&data_)) return (*map)->depth;
  const auto* callable = std::get_if<std::shared_ptr<const Box<Callable>>>(&data_);
  return callable != nullptr ? (*callable)->depth : 0;
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
  if (const Str* s = string()) return !s->empty();
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
      const Value* theirs = other.FindKey(key);
      if (theirs == nullptr || !(value == *theirs)) return false;
    }
    return true;
  }
  return name_space() != nullptr && name_space() == other.name_space();
}

const Value* Value::Find(std::string_view key) const {
  if (const Map* m = map()) {
    for (const auto& [name, value] : *m) {
      if (name.is_string() && name.string()->view() == key) return &value;
    }
  }
  if (const Namespace* n = name_space()) {
    if (auto it = n->find(key); it != n->end()) return &it->second;
  }
  return nullptr;
}

const Value* Value::FindKey(const Value& key) const {
  if (key.is_string()) return Find(key.string()->view());
  const Map* m = map();
  if (m == nullptr) return nullptr;
  const auto found =
      std::find_if(m->begin(), m->end(), [&](const auto& entry) { return entry.first == key; });
  return found != m->end() ? &found->second : nullptr;
}

Str Value::Text() const {
  if (is_undefined()) return {};
  if (const Str* s = string()) return *s;
  StrBuilder out;
  AppendRepr(&out);
  return out.Take();
}

void Value::AppendRepr(StrBuilder* out) const {
  if (is_undefined()) return out->Append("Undefined");
  if (is_none()) return out->Append("None");
  if (is_bool()) return out->Append(AsInt() != 0 ? "True" : "False");
  if (is_int()) return out->Append(std::to_string(AsInt()));
  if (is_float()) return out->Append(FloatRepr(AsDouble()));
  if (const Str* s = string()) return AppendReprString(*s, out);
  bool first = true;
  const auto separate = [&] {
    if (!std::exchange(first, false)) out->Append(", ");
  };
  if (const List* l = list()) {
    out->Append('[');
    for (const Value& item : *l) {
      separate();
      item.AppendRepr(out);
    }
    return out->Append(']');
  }
  if (const Map* m = map()) {
    out->Append('{');
    for (const auto& [key, value] : *m) {
      separate();
      key.AppendRepr(out);
      out->Append(": ");
      value.AppendRepr(out);
    }
    return out->Append('}');
  }
  throw TemplateError(fmt::format("a {} cannot be printed", TypeName()));
}

Str Value::Json(int indent) const {
  StrBuilder out;
  AppendJson(indent, 0, &out);
  return out.Take();
}

void Value::AppendJson(int indent, int depth, StrBuilder* out) const {
  const auto new_line = [&](int level) {
    if (indent < 0) return;
    out->Append('\n');
    out->Append(std::string(static_cast<size_t>(indent) * level, ' '));
  };
  const auto separate = [&](bool first) {
    if (!first) out->Append(indent < 0 ? ", " : ",");
    new_line(depth + 1);
  };
  if (is_none()) {
    out->Append("null");
  } else if (is_bool()) {
    out->Append(AsInt() != 0 ? "true" : "false");
  } else if (is_float()) {
    out->Append(JsonFloat(AsDouble()));
  } else if (is_int()) {
    out->Append(std::to_string(AsInt()));
  } else if (const Str* s = string()) {
    AppendJsonString(*s, out);
  } else if (const List* l = list()) {
    out->Append('[');
    for (size_t i = 0; i < l->size(); ++i) {
      separate(i == 0);
      (*l)[i].AppendJson(indent, depth + 1, out);
    }
    if (!l->empty()) new_line(depth);
    out->Append(']');
  } else if (const Map* m = map()) {
    out->Append('{');
    for (size_t i = 0; i < m->size(); ++i) {
      separate(i == 0);
      AppendJsonString((*m)[i].first.Text(), out);
      out->Append(": ");
      (*m)[i].second.AppendJson(indent, depth + 1, out);
    }
    if (!m->empty()) new_line(depth);
    out->Append('}');
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
