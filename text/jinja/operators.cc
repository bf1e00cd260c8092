// Operators, indexing and iteration of the template language, with Python's results and errors.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/jinja/builtins.h"

namespace fathom::jinja {
namespace {

constexpr int64_t kRepeatedItemsMax = 100'000;

[[noreturn]] void BadOperands(const std::string& op, const Value& left, const Value& right) {
  throw TemplateError(
      fmt::format("unsupported operands for {}: {} and {}", op, left.TypeName(), right.TypeName()));
}

int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

// The remainder has the sign of the divisor, as in Python. REQUIRES: b != 0.
int64_t Modulo(int64_t a, int64_t b) {
  if (b == -1) return 0;  // a % b would overflow for one a.
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value IntegerOp(const std::string& op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflow = false;
  if (op == "+") overflow = __builtin_add_overflow(a, b, &out);
  if (op == "-") overflow = __builtin_sub_overflow(a, b, &out);
  if (op == "*") overflow = __builtin_mul_overflow(a, b, &out);
  if (op == "%") out = Modulo(a, b);
  if (op == "//") {
    overflow = b == -1 && a == INT64_MIN;
    if (!overflow) out = FloorDivide(a, b);
  }
  if (op == "**") {
    out = 1;
    const bool never_grows = a >= -1 && a <= 1;  // The parity of the power decides.
    const int64_t times = never_grows ? std::min(b, 2 + b % 2) : b;
    for (int64_t i = 0; i < times && !overflow; ++i)
      overflow = i > 64 || __builtin_mul_overflow(out, a, &out);
  }
  if (overflow) throw TemplateError(fmt::format("{} {} {} is too large", a, op, b));
  return Value(out);
}

// The remainder has the sign of the divisor, and the quotient is the matching whole number.
Value DivideWhole(const std::string& op, double a, double b) {
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (rest < 0) != (b < 0)) {
    rest += b;
    quotient -= 1;
  }
  if (op == "%") return Value(rest == 0 ? std::copysign(0.0, b) : rest);
  if (quotient == 0) return Value(std::copysign(0.0, a / b));
  const double floor = std::floor(quotient);
  return Value(quotient - floor > 0.5 ? floor + 1 : floor);
}

Value NumberOp(const std::string& op, const Value& left, const Value& right) {
  if (left.big_int() != nullptr || right.big_int() != nullptr)
    throw TemplateError(fmt::format("{}: the integer is beyond 64 bits", op));
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
  if (op == "//" || op == "%") return DivideWhole(op, a, b);
  if (a == 0 && b < 0) throw TemplateError("division by zero");
  const double power = std::pow(a, b);
  const bool finite = std::isfinite(a) && std::isfinite(b);
  if (finite && !std::isfinite(power))
    throw TemplateError(fmt::format("{} ** {} is too large or no real number", a, b));
  return Value(power);
}

Str Repeat(const Str& text, int64_t times, int64_t bytes_max) {
  if (times <= 0 || text.empty()) return {};
  if (times > bytes_max / static_cast<int64_t>(text.size()))
    throw TemplateError("a repeated string is too long");
  StrBuilder out;
  for (int64_t i = 0; i < times; ++i) out.Append(text);
  return out.Take();
}

Value RepeatList(const Value& list, int64_t times) {
  const List& items = *list.list();
  if (times > 0 && static_cast<int64_t>(items.size()) > kRepeatedItemsMax / times)
    throw TemplateError("a repeated list is too long");
  List out;
  for (int64_t i = 0; i < times && !items.empty(); ++i)
    out.insert(out.end(), items.begin(), items.end());
  return list.is_tuple() ? Value::Tuple(std::move(out)) : Value(std::move(out));
}

Str Join(const Str& left, const Str& right, int64_t bytes_max) {
  if (static_cast<int64_t>(left.size() + right.size()) > bytes_max) {
    throw TemplateError("a string is too long");
  }
  return Concat(left, right);
}

// The character of a text at an index; a negative index counts from the end.
Value CharacterAt(const Str& text, int64_t index) {
  const std::vector<std::string_view> points = CodePoints(text.view());
  const auto size = static_cast<int64_t>(points.size());
  if (index < 0) index += size;
  if (index < 0 || index >= size) return {};
  const std::string_view point = points[static_cast<size_t>(index)];
  const auto begin = static_cast<size_t>(point.data() - text.view().data());
  return Value(text.Slice(begin, begin + point.size()));
}

// The indices in [0, size) that a slice takes, in order.
struct SliceRange {
  int64_t from, to, by;
  bool Has(int64_t i) const { return by > 0 ? i < to : i > to; }
  // The index after `i`, without overflow.
  int64_t After(int64_t i) const {
    return by > 0 ? i + std::min(by, to - i) : i + std::max(by, to - i);
  }
};

SliceRange RangeOf(int64_t size, const Value& start, const Value& stop, const Value& step) {
  const auto absent = [](const Value& v) { return v.is_undefined() || v.is_none(); };
  const auto part = [&](const Value& v, int64_t fallback) {
    if (absent(v)) return fallback;
    if (!v.is_int()) throw TemplateError("slice indices must be integers");
    return v.AsInt();
  };
  const int64_t by = part(step, 1);
  if (by == 0) throw TemplateError("slice step cannot be zero");
  const auto clamp = [&](int64_t index) {
    if (index < 0) index += size;
    return std::clamp<int64_t>(index, by < 0 ? -1 : 0, by < 0 ? size - 1 : size);
  };
  return {absent(start) ? (by < 0 ? size - 1 : 0) : clamp(part(start, 0)),
          absent(stop) ? (by < 0 ? -1 : size) : clamp(part(stop, 0)), by};
}

Str SliceText(const Str& text, const Value& start, const Value& stop, const Value& step) {
  const std::vector<std::string_view> points = CodePoints(text.view());
  const SliceRange range = RangeOf(static_cast<int64_t>(points.size()), start, stop, step);
  const auto offset = [&](int64_t i) {
    return i == static_cast<int64_t>(points.size())
               ? text.size()
               : static_cast<size_t>(points[static_cast<size_t>(i)].data() - text.view().data());
  };
  if (range.by == 1) {
    return range.Has(range.from) ? text.Slice(offset(range.from), offset(range.to)) : Str();
  }
  StrBuilder out;
  for (int64_t i = range.from; range.Has(i); i = range.After(i)) {
    out.Append(text.Slice(offset(i), offset(i + 1)));
  }
  return out.Take();
}

}  // namespace

List Iterate(const Value& value) {
  if (value.is_undefined()) return {};
  if (const List* list = value.list()) return *list;
  List out;
  if (const Map* map = value.map()) {
    for (const auto& [key, entry] : *map) out.push_back(key);
    return out;
  }
  if (const Str* text = value.string()) {
    for (Str& point : text->CodePoints()) out.emplace_back(std::move(point));
    return out;
  }
  throw TemplateError(fmt::format("a {} cannot be looped over", value.TypeName()));
}

Value Item(const Value& object, const Value& key) {
  if (object.is_undefined()) {
    throw TemplateError(fmt::format("{} has no entry '{}'", object.TypeName(), key.Text().view()));
  }
  const auto missing = [&key] { return Value(Undefined{key.Text().str()}); };
  if (key.is_string() || object.map() != nullptr) {
    const Value* found = object.FindKey(key);
    return found != nullptr ? *found : missing();
  }
  if (!key.is_int() && !key.is_bool()) return missing();
  if (const Str* text = object.string()) {
    Value found = CharacterAt(*text, key.AsInt());
    return found.is_undefined() ? missing() : found;
  }
  const List* list = object.list();
  if (list == nullptr) return missing();
  int64_t index = key.AsInt();
  if (index < 0) index += static_cast<int64_t>(list->size());
  if (index < 0 || index >= static_cast<int64_t>(list->size())) return missing();
  return (*list)[static_cast<size_t>(index)];
}

Value Slice(const Value& object, const Value& start, const Value& stop, const Value& step) {
  if (const Str* text = object.string()) return Value(SliceText(*text, start, stop, step));
  const List* list = object.list();
  if (list == nullptr) {
    throw TemplateError(fmt::format("a {} cannot be sliced", object.TypeName()));
  }
  const SliceRange range = RangeOf(static_cast<int64_t>(list->size()), start, stop, step);
  List out;
  for (int64_t i = range.from; range.Has(i); i = range.After(i)) {
    out.push_back((*list)[static_cast<size_t>(i)]);
  }
  return object.is_tuple() ? Value::Tuple(std::move(out)) : Value(std::move(out));
}

bool Contains(const Value& container, const Value& item) {
  if (const Str* text = container.string()) {
    if (!item.is_string())
      throw TemplateError(fmt::format("'in <string>' needs a string, got a {}", item.TypeName()));
    return text->view().find(item.string()->view()) != std::string_view::npos;
  }
  if (container.map() != nullptr) return container.FindKey(item) != nullptr;
  if (const List* list = container.list()) {
    return std::find(list->begin(), list->end(), item) != list->end();
  }
  Iterate(container);  // Throws, unless it is undefined, which contains nothing.
  return false;
}

Value BinaryOp(const std::string& op, const Value& left, const Value& right, int64_t bytes_max) {
  if (op == "~") return Value(Join(left.Text(), right.Text(), bytes_max));
  if (left.is_number() && right.is_number()) return NumberOp(op, left, right);
  if (op == "%" && left.is_string()) return Value(PercentFormat(*left.string(), right, bytes_max));
  if (op == "+" && left.is_string() && right.is_string()) {
    return Value(Join(*left.string(), *right.string(), bytes_max));
  }
  const bool lists = left.list() != nullptr && right.list() != nullptr;
  if (op == "+" && lists && left.is_tuple() == right.is_tuple()) {
    List joined = *left.list();
    joined.insert(joined.end(), right.list()->begin(), right.list()->end());
    return left.is_tuple() ? Value::Tuple(std::move(joined)) : Value(std::move(joined));
  }
  if (op == "*" && (right.is_int() || right.is_bool()) && !left.is_number()) {
    if (left.is_string()) return Value(Repeat(*left.string(), right.AsInt(), bytes_max));
    if (left.list() != nullptr) return RepeatList(left, right.AsInt());
  }
  if (op == "*" && (left.is_int() || left.is_bool()) && !right.is_number())
    return BinaryOp(op, right, left, bytes_max);
  BadOperands(op, left, right);
}

bool CompareOp(std::string_view op, const Value& left, const Value& right) {
  if (op == "==") return left == right;
  if (op == "!=") return !(left == right);
  if (op == "in") return Contains(right, left);
  if (op == "not in") return !Contains(right, left);
  const auto no_number = [](const Value& v) { return v.is_float() && std::isnan(v.AsDouble()); };
  const int order = Order(left, right);
  if (no_number(left) || no_number(right)) return false;
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  if (op == ">") return order > 0;
  return order >= 0;
}

}  // namespace fathom::jinja
