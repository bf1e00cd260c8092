// Operators, indexing and iteration of the template language, with Python's results and errors.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/jinja/eval.h"

namespace fathom::router::jinja {
namespace {

[[noreturn]] void BadOperands(const std::string& op, const Value& left, const Value& right) {
  throw TemplateError(
      fmt::format("unsupported operands for {}: {} and {}", op, left.TypeName(), right.TypeName()));
}

int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Value IntegerOp(const std::string& op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflow = false;
  if (op == "+") overflow = __builtin_add_overflow(a, b, &out);
  if (op == "-") overflow = __builtin_sub_overflow(a, b, &out);
  if (op == "*") overflow = __builtin_mul_overflow(a, b, &out);
  if (op == "//" || op == "%") {
    overflow = b == -1 && a == INT64_MIN;
    if (!overflow) out = op == "//" ? FloorDivide(a, b) : a - FloorDivide(a, b) * b;
  }
  if (op == "**") {
    out = 1;
    for (int64_t i = 0; i < b && !overflow; ++i)
      overflow = i > 64 || __builtin_mul_overflow(out, a, &out);
  }
  if (overflow) throw TemplateError(fmt::format("{} {} {} is too large", a, op, b));
  return Value(out);
}

Value NumberOp(const std::string& op, const Value& left, const Value& right) {
  const bool divides = op == "/" || op == "//" || op == "%";
  if (divides && right.AsDouble() == 0) throw TemplateError("division by zero");
  const bool real =
      left.is_float() || right.is_float() || op == "/" || (op == "**" && right.AsDouble() < 0);
  if (!real) return IntegerOp(op, left.AsInt(), right.AsInt());
  const double a = left.AsDouble(), b = right.AsDouble();
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "/") return Value(a / b);
  if (op == "//") return Value(std::floor(a / b));
  if (op == "%") return Value(a - std::floor(a / b) * b);
  return Value(std::pow(a, b));
}

std::string Repeat(const std::string& text, int64_t times, int64_t bytes_max) {
  if (times <= 0 || text.empty()) return "";
  if (times > bytes_max / static_cast<int64_t>(text.size()))
    throw TemplateError("a repeated string is too long");
  std::string out;
  for (int64_t i = 0; i < times; ++i) out += text;
  return out;
}

}  // namespace

List Iterate(const Value& value) {
  if (value.is_undefined()) return {};
  if (const List* list = value.list()) return *list;
  List out;
  if (const Map* map = value.map()) {
    for (const auto& [key, entry] : *map) out.emplace_back(key);
    return out;
  }
  if (const std::string* text = value.string()) {
    for (const std::string_view point : CodePoints(*text)) out.emplace_back(std::string(point));
    return out;
  }
  throw TemplateError(fmt::format("a {} cannot be looped over", value.TypeName()));
}

Value Item(const Value& object, const Value& key) {
  if (object.is_undefined()) {
    throw TemplateError(fmt::format("{} has no entry '{}'", object.TypeName(), key.Text()));
  }
  if (key.is_string()) {
    const Value* found = object.Find(*key.string());
    return found != nullptr ? *found : Value(Undefined{*key.string()});
  }
  if (!key.is_int() && !key.is_bool()) return Value(Undefined{key.Text()});
  const List* list = object.list();
  if (list == nullptr && !object.is_string()) return Value(Undefined{key.Text()});
  const List items = list != nullptr ? List() : Iterate(object);
  const List& all = list != nullptr ? *list : items;
  int64_t index = key.AsInt();
  if (index < 0) index += static_cast<int64_t>(all.size());
  if (index < 0 || index >= static_cast<int64_t>(all.size())) return Value(Undefined{key.Text()});
  return all[static_cast<size_t>(index)];
}

Value Slice(const Value& object, const Value& start, const Value& stop, const Value& step) {
  if (object.list() == nullptr && !object.is_string()) {
    throw TemplateError(fmt::format("a {} cannot be sliced", object.TypeName()));
  }
  const auto part = [](const Value& v, int64_t absent) {
    if (v.is_undefined() || v.is_none()) return absent;
    if (!v.is_int()) throw TemplateError("slice indices must be integers");
    return v.AsInt();
  };
  const List items = Iterate(object);
  const auto size = static_cast<int64_t>(items.size());
  const int64_t by = part(step, 1);
  if (by == 0) throw TemplateError("slice step cannot be zero");
  const auto clamp = [&](int64_t index) {
    if (index < 0) index += size;
    return std::clamp<int64_t>(index, by < 0 ? -1 : 0, by < 0 ? size - 1 : size);
  };
  const int64_t from =
      start.is_undefined() || start.is_none() ? (by < 0 ? size - 1 : 0) : clamp(part(start, 0));
  const int64_t to =
      stop.is_undefined() || stop.is_none() ? (by < 0 ? -1 : size) : clamp(part(stop, 0));
  List out;
  for (int64_t i = from; by > 0 ? i < to : i > to; i += by)
    out.push_back(items[static_cast<size_t>(i)]);
  if (!object.is_string()) return Value(std::move(out));
  std::string text;
  for (const Value& item : out) text += *item.string();
  return Value(std::move(text));
}

bool Contains(const Value& container, const Value& item) {
  if (const std::string* text = container.string()) {
    if (!item.is_string())
      throw TemplateError(fmt::format("'in <string>' needs a string, got a {}", item.TypeName()));
    return text->find(*item.string()) != std::string::npos;
  }
  if (container.map() != nullptr)
    return item.is_string() && container.Find(*item.string()) != nullptr;
  const List items = Iterate(container);
  return std::find(items.begin(), items.end(), item) != items.end();
}

Value BinaryOp(const std::string& op, const Value& left, const Value& right, int64_t bytes_max) {
  if (op == "~") return Value(left.Text() + right.Text());
  if (left.is_number() && right.is_number()) return NumberOp(op, left, right);
  if (op == "+" && left.is_string() && right.is_string()) {
    if (static_cast<int64_t>(left.string()->size() + right.string()->size()) > bytes_max) {
      throw TemplateError("a string is too long");
    }
    return Value(*left.string() + *right.string());
  }
  if (op == "+" && left.list() != nullptr && right.list() != nullptr) {
    List joined = *left.list();
    joined.insert(joined.end(), right.list()->begin(), right.list()->end());
    return Value(std::move(joined));
  }
  if (op == "*" && left.is_string() && right.is_int()) {
    return Value(Repeat(*left.string(), right.AsInt(), bytes_max));
  }
  BadOperands(op, left, right);
}

bool CompareOp(const std::string& op, const Value& left, const Value& right) {
  if (op == "==") return left == right;
  if (op == "!=") return !(left == right);
  if (op == "in") return Contains(right, left);
  if (op == "not in") return !Contains(right, left);
  int order = 0;
  if (left.is_number() && right.is_number()) {
    order = left.AsDouble() < right.AsDouble() ? -1 : left.AsDouble() > right.AsDouble() ? 1 : 0;
  } else if (left.is_string() && right.is_string()) {
    order = left.string()->compare(*right.string());  // UTF-8 bytes sort as code points do.
  } else {
    BadOperands(op, left, right);
  }
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  if (op == ">") return order > 0;
  return order >= 0;
}

}  // namespace fathom::router::jinja
