#include "text/jinja/value.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "common/check.h"
#include "common/utf8.h"

namespace fathom::jinja {
namespace {

constexpr size_t kIndexedEntriesMin = 16;  // Smaller maps are searched linearly.

// str.isprintable of a character beyond ASCII.
bool Printable(uint32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

// The escape of a character in Python's repr of a string in `quote`s; empty: the character needs
// none.
std::string ReprEscape(std::string_view point, char quote) {
  const char c = point[0];
  if (c == '\n') return "\\n";
  if (c == '\r') return "\\r";
  if (c == '\t') return "\\t";
  if (c == '\\' || c == quote) return {'\\', c};
  const uint32_t code = CodePointAt(point);
  if (code >= 0x20 && code < 0x7F) return {};
  if (code >= 0x7F && Printable(code)) return {};
  if (code < 0x100) return fmt::format("\\x{:02x}", code);
  return code < 0x10000 ? fmt::format("\\u{:04x}", code) : fmt::format("\\U{:08x}", code);
}

// Appends the string in quotes; an escape is literal if its character is.
void AppendReprString(const Str& str, StrBuilder* out) {
  const std::string_view text = str.view();
  const bool double_quoted = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = double_quoted ? '"' : '\'';
  out->Append(quote);
  str.ForEachRun([&](std::string_view run, bool literal) {
    for (const std::string_view point : CodePoints(run)) {
      const std::string escaped = ReprEscape(point, quote);
      out->AppendAs(escaped.empty() ? point : std::string_view(escaped), literal);
    }
  });
  out->Append(quote);
}

// Equal keys have equal hashes; numbers of different types can be equal.
size_t HashOf(const Value& key) {
  if (const Str* s = key.string()) return std::hash<std::string_view>()(s->view());
  if (key.is_number()) return std::hash<double>()(key.AsDouble());
  if (const List* list = key.list()) {
    size_t hash = list->size();
    for (const Value& item : *list) hash = hash * 31 + HashOf(item);
    return hash;
  }
  return 0;
}

bool Hashable(const Value& key) {
  if (const List* list = key.list())
    return key.is_tuple() && std::all_of(list->begin(), list->end(), Hashable);
  return key.map() == nullptr;
}

const Value* FindIn(const Map& map, const KeyIndex& index, const Value& key) {
  if (index.empty()) {
    for (const auto& [name, value] : map) {
      if (name == key) return &value;
    }
    return nullptr;
  }
  const auto [begin, end] = index.equal_range(HashOf(key));
  for (auto at = begin; at != end; ++at) {
    if (map[at->second].first == key) return &map[at->second].second;
  }
  return nullptr;
}

int OrderOfBig(const BigInt& left, const BigInt& right) {
  const bool left_negative = left.digits.starts_with('-');
  const bool right_negative = right.digits.starts_with('-');
  if (left_negative != right_negative) return left_negative ? -1 : 1;
  const int by_length = static_cast<int>(left.digits.size() > right.digits.size()) -
                        static_cast<int>(left.digits.size() < right.digits.size());
  const int order = by_length != 0 ? by_length : left.digits.compare(right.digits);
  return left_negative ? -order : order;
}

template <class T>
int ThreeWay(const T& left, const T& right) {
  return static_cast<int>(right < left) - static_cast<int>(left < right);
}

int OrderOfNumbers(const Value& left, const Value& right) {
  const bool exact = !left.is_float() && !right.is_float();
  if (!exact) return ThreeWay(left.AsDouble(), right.AsDouble());
  const BigInt *l = left.big_int(), *r = right.big_int();
  if (l != nullptr && r != nullptr) return OrderOfBig(*l, *r);
  if (l != nullptr) return l->digits.starts_with('-') ? -1 : 1;
  if (r != nullptr) return r->digits.starts_with('-') ? 1 : -1;
  return ThreeWay(left.AsInt(), right.AsInt());
}

}  // namespace

std::vector<std::string_view> CodePoints(std::string_view text) {
  std::vector<std::string_view> points;
  points.reserve(text.size());
  while (!text.empty()) {
    const size_t size = NextCharacter(text, 0);
    points.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return points;
}

bool IsSpaceAt(std::string_view text, size_t* size) {
  const Utf8Step step = ScanUtf8(text);
  *size = step.bytes;
  const char32_t c = step.code_point;
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

uint32_t CodePointAt(std::string_view text) { return FirstCodePoint(text); }

void AppendUtf8(uint32_t code, std::string* out) {
  const auto tail = [&](int shift) { *out += static_cast<char>(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) {
    *out += static_cast<char>(code);
  } else if (code < 0x800) {
    *out += static_cast<char>(0xC0 | code >> 6);
  } else if (code < 0x10000) {
    *out += static_cast<char>(0xE0 | code >> 12);
  } else {
    *out += static_cast<char>(0xF0 | code >> 18);
  }
  if (code >= 0x10000) tail(12);
  if (code >= 0x800) tail(6);
  if (code >= 0x80) tail(0);
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

void Value::Extent::Add(const Extent& inner) {
  depth = std::max(depth, inner.depth);
  weight = std::min(weight + inner.weight, kValueWeightMax + 1);
}

template <class T>
std::shared_ptr<Value::Box<T>> Value::MakeBox(T items, Extent extent) {
  ++extent.depth;
  if (extent.depth > kValueDepthMax) {
    throw TemplateError(fmt::format("values are nested deeper than {}", kValueDepthMax));
  }
  if (extent.weight > kValueWeightMax) {
    throw TemplateError(fmt::format("a value holds more than {} bytes", kValueWeightMax));
  }
  return std::make_shared<Box<T>>(Box<T>{std::move(items), extent});
}

Value::Value(List v) {
  Extent extent;
  for (const Value& item : v) extent.Add(item.ExtentOf());
  data_ = std::shared_ptr<const Box<List>>(MakeBox(std::move(v), extent));
}

Value Value::Tuple(List items) {
  Extent extent;
  for (const Value& item : items) extent.Add(item.ExtentOf());
  auto box = MakeBox(std::move(items), extent);
  box->tuple = true;
  Value tuple;
  tuple.data_ = std::shared_ptr<const Box<List>>(std::move(box));
  return tuple;
}

Value::Value(Map v) {
  Extent extent;
  for (const auto& [key, item] : v) {
    extent.Add(key.ExtentOf());
    extent.Add(item.ExtentOf());
  }
  auto box = MakeBox(std::move(v), extent);
  if (box->items.size() >= kIndexedEntriesMin) {
    for (size_t i = 0; i < box->items.size(); ++i)
      box->index.emplace(HashOf(box->items[i].first), i);
  }
  data_ = std::shared_ptr<const Box<Map>>(std::move(box));
}

Value::Value(Callable v) {
  const Extent extent = v.self != nullptr ? v.self->ExtentOf() : Extent();
  data_ = std::shared_ptr<const Box<Callable>>(MakeBox(std::move(v), extent));
}

bool Value::is_tuple() const {
  const auto* box = std::get_if<std::shared_ptr<const Box<List>>>(&data_);
  return box != nullptr && (*box)->tuple;
}

Value::Extent Value::ExtentOf() const {
  if (const Str* s = string()) return {0, static_cast<int64_t>(s->size()) + 1};
  if (const auto* list = std::get_if<std::shared_ptr<const Box<List>>>(&data_))
    return (*list)->extent;
  if (const auto* map = std::get_if<std::shared_ptr<const Box<Map>>>(&data_)) return (*map)->extent;
  const auto* callable = std::get_if<std::shared_ptr<const Box<Callable>>>(&data_);
  return callable != nullptr ? (*callable)->extent : Extent{0, 1};
}

double Value::AsDouble() const {
  if (const auto* b = std::get_if<bool>(&data_)) return *b ? 1 : 0;
  if (const auto* i = std::get_if<int64_t>(&data_)) return static_cast<double>(*i);
  if (const BigInt* big = big_int()) return std::strtod(big->digits.c_str(), nullptr);
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
    const bool real = is_float() || other.is_float();  // NaN equals nothing.
    return real ? AsDouble() == other.AsDouble() : OrderOfNumbers(*this, other) == 0;
  }
  if (is_undefined() || other.is_undefined()) return is_undefined() && other.is_undefined();
  if (is_none() || other.is_none()) return is_none() && other.is_none();
  if (is_string() && other.is_string()) return *string() == *other.string();
  if (list() != nullptr && other.list() != nullptr)
    return is_tuple() == other.is_tuple() && *list() == *other.list();
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

const Value* Value::FindKey(const Value& key) const {
  if (const auto* box = std::get_if<std::shared_ptr<const Box<Map>>>(&data_))
    return FindIn((*box)->items, (*box)->index, key);
  if (const Namespace* n = name_space(); n != nullptr && key.is_string()) {
    if (auto it = n->find(key.string()->view()); it != n->end()) return &it->second;
  }
  return nullptr;
}

Str Value::Text() const {
  if (is_undefined()) return {};
  if (const Str* s = string()) return *s;
  return Repr();
}

Str Value::Repr() const {
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
  if (const BigInt* big = big_int()) return out->Append(big->digits);
  if (const Str* s = string()) return AppendReprString(*s, out);
  bool first = true;
  const auto separate = [&] {
    if (!std::exchange(first, false)) out->Append(", ");
  };
  if (const List* l = list()) {
    out->Append(is_tuple() ? '(' : '[');
    for (const Value& item : *l) {
      separate();
      item.AppendRepr(out);
    }
    if (is_tuple() && l->size() == 1) out->Append(',');
    return out->Append(is_tuple() ? ')' : ']');
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

std::string Value::TypeName() const {
  if (const Undefined* u = undefined())
    return u->name.empty() ? "undefined value" : "undefined '" + u->name + "'";
  if (is_none()) return "None";
  if (is_bool()) return "bool";
  if (is_int() || big_int() != nullptr) return "int";
  if (is_float()) return "float";
  if (is_string()) return "string";
  if (list() != nullptr) return is_tuple() ? "tuple" : "list";
  if (map() != nullptr) return "mapping";
  return name_space() != nullptr ? "namespace" : "function";
}

void MapBuilder::Set(Value key, Value value) {
  if (!Hashable(key)) throw TemplateError(fmt::format("a {} cannot be a key", key.TypeName()));
  const size_t hash = HashOf(key);
  const auto [begin, end] = index_.equal_range(hash);
  for (auto at = begin; at != end; ++at) {
    if (map_[at->second].first == key) {
      map_[at->second].second = std::move(value);
      return;
    }
  }
  index_.emplace(hash, map_.size());
  map_.emplace_back(std::move(key), std::move(value));
}

bool MapBuilder::Has(const Value& key) const { return FindIn(map_, index_, key) != nullptr; }

Map MapBuilder::Take() {
  index_.clear();
  return std::exchange(map_, {});
}

int Order(const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) return OrderOfNumbers(left, right);
  if (left.is_string() && right.is_string()) {
    // The order of UTF-8 bytes is the order of code points.
    return left.string()->view().compare(right.string()->view());
  }
  if (left.list() != nullptr && right.list() != nullptr && left.is_tuple() == right.is_tuple()) {
    const List &l = *left.list(), &r = *right.list();
    for (size_t i = 0; i < std::min(l.size(), r.size()); ++i) {
      if (!(l[i] == r[i])) return Order(l[i], r[i]);
    }
    return ThreeWay(l.size(), r.size());
  }
  throw TemplateError(
      fmt::format("a {} and a {} have no order", left.TypeName(), right.TypeName()));
}

}  // namespace fathom::jinja
