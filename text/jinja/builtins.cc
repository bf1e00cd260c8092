// Filters, tests and methods (but strings' own: string_methods.h) of the template language, with
// Python's results.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "text/jinja/eval.h"
#include "text/jinja/string_methods.h"

namespace fathom::router::jinja {
namespace {

List MapItems(const Map& map) {
  List items;
  for (const auto& [key, value] : map) items.emplace_back(List{key, value});
  return items;
}

Value Attribute(const Value& object, const Value& path) {
  if (!path.is_string()) return Item(object, path);
  Value at = object;
  for (const Value& part : Split(*path.string(), Value("."), -1)) at = Item(at, part);
  return at;
}

// select, reject, selectattr, rejectattr.
Value Select(const std::string& name, const Value& input, const CallArgs& args) {
  const bool by_attribute = name.ends_with("attr");
  const bool keep = name.starts_with("select");
  const size_t first = by_attribute ? 1 : 0;
  const std::string test =
      args.args.size() > first ? WantString(args.args[first], name).str() : std::string();
  CallArgs rest;
  rest.bytes_max = args.bytes_max;
  for (size_t i = first + 1; i < args.args.size(); ++i) rest.args.push_back(args.args[i]);
  List kept;
  for (const Value& item : Iterate(input)) {
    const Value subject = by_attribute ? Attribute(item, args.Get(0, "attribute")) : item;
    if ((test.empty() ? subject.Truthy() : ApplyTest(test, subject, rest)) == keep)
      kept.push_back(item);
  }
  return Value(std::move(kept));
}

Value MapFilter(const Value& input, const CallArgs& args) {
  const Value attribute = args.Get(99, "attribute");
  List out;
  for (const Value& item : Iterate(input)) {
    if (!attribute.is_undefined()) {
      Value got = Attribute(item, attribute);
      out.push_back(got.is_undefined() ? args.Get(99, "default", got) : std::move(got));
    } else {
      CallArgs rest;
      rest.bytes_max = args.bytes_max;
      for (size_t i = 1; i < args.args.size(); ++i) rest.args.push_back(args.args[i]);
      out.push_back(ApplyFilter(WantString(args.Get(0, "filter"), "map").str(), item, rest));
    }
  }
  return Value(std::move(out));
}

Value Join(const Value& input, const CallArgs& args) {
  const Str between = args.Get(0, "d", Value("")).Text();
  const Value attribute = args.Get(1, "attribute");
  StrBuilder out;
  bool first = true;
  for (const Value& item : Iterate(input)) {
    if (!std::exchange(first, false)) out.Append(between);
    out.Append((attribute.is_undefined() ? item : Attribute(item, attribute)).Text());
    if (static_cast<int64_t>(out.size()) > args.bytes_max)
      throw TemplateError("join: the result is too long");
  }
  return Value(out.Take());
}

Value ToInt(const Value& input, const CallArgs& args) {
  const Value fallback = args.Get(0, "default", Value(int64_t{0}));
  if (input.is_float()) {
    const double value = std::trunc(input.AsDouble());
    if (std::isnan(value)) return fallback;
    if (!(value >= -0x1p63 && value < 0x1p63)) {
      throw TemplateError(fmt::format("int: {} is too large", FloatRepr(value)));
    }
    return Value(static_cast<int64_t>(value));
  }
  if (input.is_number()) return Value(input.AsInt());
  const Str stripped = Strip(input.Text(), Value(), kBoth);
  std::string_view text = stripped.view();
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  int64_t parsed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
  return error == std::errc() && end == text.data() + text.size() ? Value(parsed) : fallback;
}

Value Length(const Value& input) {
  if (const Str* s = input.string())
    return Value(static_cast<int64_t>(CodePoints(s->view()).size()));
  if (const List* list = input.list()) return Value(static_cast<int64_t>(list->size()));
  if (input.is_none() || input.is_number()) {
    throw TemplateError(fmt::format("length: a {} has no length", input.TypeName()));
  }
  return Value(static_cast<int64_t>(Iterate(input).size()));
}

Value Reverse(const Value& input) {
  if (input.is_string()) return Value(ReverseText(*input.string()));
  List items = Iterate(input);
  std::reverse(items.begin(), items.end());
  return Value(std::move(items));
}

using Filter = Value (*)(const Value&, const CallArgs&);
struct FilterRow {
  std::string_view name;
  Filter filter;
};

constexpr FilterRow kFilters[] = {
    {"tojson",
     [](const Value& v, const CallArgs& a) {
       const Value indent = a.Get(0, "indent");
       const bool one_line = indent.is_undefined() || indent.is_none();
       return Value(v.Json(
           one_line ? -1
                    : static_cast<int>(std::clamp<int64_t>(WantInt(indent, "tojson"), 0, 16))));
     }},
    {"length", [](const Value& v, const CallArgs&) { return Length(v); }},
    {"count", [](const Value& v, const CallArgs&) { return Length(v); }},
    {"trim", [](const Value& v,
                const CallArgs& a) { return Value(Strip(v.Text(), a.Get(0, "chars"), kBoth)); }},
    {"default",
     [](const Value& v, const CallArgs& a) {
       const bool falsy = a.Get(1, "boolean", Value(false)).Truthy() && !v.Truthy();
       return v.is_undefined() || falsy ? a.Get(0, "default_value", Value("")) : v;
     }},
    {"items",
     [](const Value& v, const CallArgs&) {
       if (v.is_undefined()) return Value(List{});
       if (v.map() == nullptr)
         throw TemplateError(fmt::format("items needs a mapping, got a {}", v.TypeName()));
       return Value(MapItems(*v.map()));
     }},
    {"join", Join},
    {"list", [](const Value& v, const CallArgs&) { return Value(Iterate(v)); }},
    {"string", [](const Value& v, const CallArgs&) { return Value(v.Text()); }},
    {"int", ToInt},
    {"first",
     [](const Value& v, const CallArgs&) {
       const List items = Iterate(v);
       return items.empty() ? Value() : items.front();
     }},
    {"last",
     [](const Value& v, const CallArgs&) {
       const List items = Iterate(v);
       return items.empty() ? Value() : items.back();
     }},
    {"reverse", [](const Value& v, const CallArgs&) { return Reverse(v); }},
    {"map", MapFilter},
    {"indent", [](const Value& v, const CallArgs& a) { return Value(Indent(v.Text(), a)); }},
    {"replace", [](const Value& v, const CallArgs& a) { return Value(Replace(v.Text(), a)); }},
    {"upper",
     [](const Value& v, const CallArgs&) { return Value(ChangeCase(v.Text(), Case::kUpper)); }},
    {"lower",
     [](const Value& v, const CallArgs&) { return Value(ChangeCase(v.Text(), Case::kLower)); }},
    {"title",
     [](const Value& v, const CallArgs&) { return Value(ChangeCase(v.Text(), Case::kTitle)); }},
    {"capitalize",
     [](const Value& v, const CallArgs&) { return Value(ChangeCase(v.Text(), Case::kCapital)); }},
    {"safe", [](const Value& v, const CallArgs&) { return v; }},
};

constexpr std::string_view kSelects[] = {"select", "reject", "selectattr", "rejectattr"};
constexpr std::string_view kComparisons[] = {"==", "!=", "<", "<=", ">", ">="};  // As tests.
constexpr std::string_view kMapMethods[] = {"items", "keys", "values", "get"};

template <size_t kCount>
bool Has(const std::string_view (&names)[kCount], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

bool Equal(const Value& v, const CallArgs& a) { return v == a.Get(0, "other"); }

using Test = bool (*)(const Value&, const CallArgs&);
struct TestRow {
  std::string_view name;
  Test test;
};

constexpr TestRow kTests[] = {
    {"defined", [](const Value& v, const CallArgs&) { return !v.is_undefined(); }},
    {"undefined", [](const Value& v, const CallArgs&) { return v.is_undefined(); }},
    {"none", [](const Value& v, const CallArgs&) { return v.is_none(); }},
    {"string", [](const Value& v, const CallArgs&) { return v.is_string(); }},
    {"number", [](const Value& v, const CallArgs&) { return v.is_number(); }},
    {"integer", [](const Value& v, const CallArgs&) { return v.is_int(); }},
    {"float", [](const Value& v, const CallArgs&) { return v.is_float(); }},
    {"boolean", [](const Value& v, const CallArgs&) { return v.is_bool(); }},
    {"true", [](const Value& v, const CallArgs&) { return v.is_bool() && v.AsInt() != 0; }},
    {"false", [](const Value& v, const CallArgs&) { return v.is_bool() && v.AsInt() == 0; }},
    {"mapping", [](const Value& v, const CallArgs&) { return v.map() != nullptr; }},
    {"sequence",
     [](const Value& v, const CallArgs&) {
       return v.is_string() || v.list() != nullptr || v.map() != nullptr || v.is_undefined();
     }},
    {"iterable",
     [](const Value& v, const CallArgs&) {
       return v.is_string() || v.list() != nullptr || v.map() != nullptr || v.is_undefined();
     }},
    {"callable", [](const Value& v, const CallArgs&) { return v.callable() != nullptr; }},
    {"odd", [](const Value& v, const CallArgs&) { return WantInt(v, "odd") % 2 != 0; }},
    {"even", [](const Value& v, const CallArgs&) { return WantInt(v, "even") % 2 == 0; }},
    {"divisibleby",
     [](const Value& v, const CallArgs& a) {
       const int64_t by = WantInt(a.Get(0, "num"), "divisibleby");
       const int64_t number = WantInt(v, "divisibleby");
       if (by == 0) throw TemplateError("divisibleby: division by zero");
       return by == -1 || number % by == 0;
     }},
    {"equalto", Equal},
    {"eq", Equal},
    {"ne", [](const Value& v, const CallArgs& a) { return !Equal(v, a); }},
    {"in", [](const Value& v, const CallArgs& a) { return Contains(a.Get(0, "seq"), v); }},
};

}  // namespace

Value CallArgs::Get(size_t index, std::string_view name, Value fallback) const {
  if (index < args.size()) return args[index];
  for (const auto& [key, value] : named) {
    if (key == name) return value;
  }
  return fallback;
}

std::vector<std::string_view> FilterNames() {
  std::vector<std::string_view> names(std::begin(kSelects), std::end(kSelects));
  for (const FilterRow& row : kFilters) names.push_back(row.name);
  names.push_back("d");
  return names;
}

std::vector<std::string_view> TestNames() {
  std::vector<std::string_view> names(std::begin(kComparisons), std::end(kComparisons));
  for (const TestRow& row : kTests) names.push_back(row.name);
  return names;
}

std::vector<std::string_view> MethodNames() {
  std::vector<std::string_view> names = StringMethodNames();
  names.insert(names.end(), std::begin(kMapMethods), std::end(kMapMethods));
  return names;
}

bool HasMethod(const Value& self, std::string_view name) {
  if (self.is_string()) return HasStringMethod(name);
  return self.map() != nullptr && Has(kMapMethods, name);
}

Value CallMethod(const Value& self, const std::string& name, const CallArgs& args) {
  if (const Str* text = self.string()) return CallStringMethod(*text, name, args);
  if (const Map* map = self.map()) {
    if (name == "items") return Value(MapItems(*map));
    if (name == "get") {
      const Value* found = self.FindKey(args.Get(0, "key"));
      return found != nullptr ? *found : args.Get(1, "default", Value(None{}));
    }
    List out;
    for (const auto& [key, value] : *map) out.push_back(name == "keys" ? key : value);
    return Value(std::move(out));
  }
  throw TemplateError(fmt::format("a {} has no method '{}'", self.TypeName(), name));
}

Value ApplyFilter(const std::string& name, const Value& input, const CallArgs& args) {
  if (Has(kSelects, name)) return Select(name, input, args);
  for (const FilterRow& row : kFilters) {
    if (row.name == (name == "d" ? "default" : name)) return row.filter(input, args);
  }
  throw TemplateError(fmt::format("the filter '{}' is not supported in chat templates", name));
}

bool ApplyTest(const std::string& name, const Value& input, const CallArgs& args) {
  for (const TestRow& row : kTests) {
    if (row.name == name) return row.test(input, args);
  }
  if (Has(kComparisons, name)) return CompareOp(name, input, args.Get(0, "other"));
  throw TemplateError(fmt::format("the test '{}' is not supported in chat templates", name));
}

}  // namespace fathom::router::jinja
