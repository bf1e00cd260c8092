// Filters, tests and methods of the template language, with Python's results.
#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cmath>

#include "text/jinja/eval.h"

namespace fathom::router::jinja {
namespace {

std::string WantString(const Value& value, std::string_view what) {
  if (!value.is_string())
    throw TemplateError(fmt::format("{} needs a string, got a {}", what, value.TypeName()));
  return *value.string();
}

int64_t WantInt(const Value& value, std::string_view what) {
  if (!value.is_int() && !value.is_bool()) {
    throw TemplateError(fmt::format("{} needs an integer, got a {}", what, value.TypeName()));
  }
  return value.AsInt();
}

enum Sides { kLeft = 1, kRight = 2, kBoth = 3 };

// str.strip: by white space, or by the code points of `chars`.
std::string Strip(std::string_view text, const Value& chars, Sides sides) {
  std::vector<std::string_view> points = CodePoints(text);
  std::vector<std::string_view> set;
  const bool given = chars.is_string();
  if (given) set = CodePoints(*chars.string());
  const auto goes = [&](std::string_view point) {
    size_t size = 0;
    return given ? std::find(set.begin(), set.end(), point) != set.end() : IsSpaceAt(point, &size);
  };
  size_t first = 0, last = points.size();
  while ((sides & kLeft) != 0 && first < last && goes(points[first])) ++first;
  while ((sides & kRight) != 0 && last > first && goes(points[last - 1])) --last;
  if (first == last) return "";
  return {points[first].data(),
          static_cast<size_t>(points[last - 1].end() - points[first].begin())};
}

List SplitAtSpace(std::string_view text, int64_t most) {
  List parts;
  std::string_view rest = text;
  const auto skip = [&rest] {
    size_t size = 0;
    while (!rest.empty() && IsSpaceAt(rest, &size)) rest.remove_prefix(size);
  };
  for (skip(); !rest.empty(); skip()) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) == most) {
      parts.emplace_back(Strip(rest, Value(), kRight));
      break;
    }
    size_t end = 0, size = 0;
    while (end < rest.size() && !IsSpaceAt(rest.substr(end), &size)) end += size;
    parts.emplace_back(std::string(rest.substr(0, end)));
    rest.remove_prefix(end);
  }
  return parts;
}

List Split(const std::string& text, const Value& separator, int64_t most) {
  if (separator.is_undefined() || separator.is_none()) return SplitAtSpace(text, most);
  const std::string by = WantString(separator, "split");
  if (by.empty()) throw TemplateError("split: empty separator");
  List parts;
  size_t start = 0;
  for (size_t hit = text.find(by); hit != std::string::npos; hit = text.find(by, start)) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) == most) break;
    parts.emplace_back(text.substr(start, hit - start));
    start = hit + by.size();
  }
  parts.emplace_back(text.substr(start));
  return parts;
}

List SplitRight(const std::string& text, const Value& separator, int64_t most) {
  if (most < 0 || !separator.is_string()) return Split(text, separator, most);
  const std::string& by = *separator.string();
  if (by.empty()) throw TemplateError("rsplit: empty separator");
  List parts;
  size_t end = text.size();
  while (static_cast<int64_t>(parts.size()) < most) {
    const size_t hit = end < by.size() ? std::string::npos : text.rfind(by, end - by.size());
    if (hit == std::string::npos) break;
    parts.emplace_back(text.substr(hit + by.size(), end - hit - by.size()));
    end = hit;
  }
  parts.emplace_back(text.substr(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

enum class Case { kUpper, kLower, kTitle, kCapital };

std::string ChangeCase(const std::string& text, Case to) {
  std::string out;
  bool at_start = true;
  for (const std::string_view point : CodePoints(text)) {
    utf8proc_int32_t code = 0;
    utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(point.data()),
                     static_cast<utf8proc_ssize_t>(point.size()), &code);
    const bool upper =
        to == Case::kUpper || ((to == Case::kTitle || to == Case::kCapital) && at_start);
    const utf8proc_int32_t changed = upper ? utf8proc_toupper(code) : utf8proc_tolower(code);
    const bool letter = utf8proc_toupper(code) != code || utf8proc_tolower(code) != code;
    at_start = to == Case::kTitle ? !letter : false;
    utf8proc_uint8_t bytes[4];
    out.append(reinterpret_cast<const char*>(bytes),
               static_cast<size_t>(utf8proc_encode_char(changed, bytes)));
  }
  return out;
}

std::string Replace(const std::string& text, const CallArgs& args) {
  const std::string from = WantString(args.Get(0, "old"), "replace");
  const std::string to = WantString(args.Get(1, "new"), "replace");
  const int64_t most = args.Get(2, "count", Value(int64_t{-1})).AsInt();
  if (from.empty()) throw TemplateError("replace: the text to replace is empty");
  std::string out;
  size_t start = 0;
  int64_t done = 0;
  for (size_t hit = text.find(from); hit != std::string::npos && done != most;
       hit = text.find(from, start), ++done) {
    out.append(text, start, hit - start).append(to);
    start = hit + from.size();
    if (static_cast<int64_t>(out.size()) > args.bytes_max)
      throw TemplateError("replace: the result is too long");
  }
  return out.append(text, start, std::string::npos);
}

// startswith and endswith: one text or several.
bool Affix(const std::string& text, const Value& affix, bool front) {
  if (const List* several = affix.list()) {
    return std::any_of(several->begin(), several->end(),
                       [&](const Value& v) { return Affix(text, v, front); });
  }
  const std::string one = WantString(affix, front ? "startswith" : "endswith");
  return front ? text.starts_with(one) : text.ends_with(one);
}

using StringMethod = Value (*)(const std::string&, const CallArgs&);
struct StringRow {
  std::string_view name;
  StringMethod method;
};

int64_t MaxSplit(const CallArgs& args) {
  return WantInt(args.Get(1, "maxsplit", Value(int64_t{-1})), "split");
}

constexpr StringRow kStringMethods[] = {
    {"strip", [](const std::string& s,
                 const CallArgs& a) { return Value(Strip(s, a.Get(0, "chars"), kBoth)); }},
    {"lstrip", [](const std::string& s,
                  const CallArgs& a) { return Value(Strip(s, a.Get(0, "chars"), kLeft)); }},
    {"rstrip", [](const std::string& s,
                  const CallArgs& a) { return Value(Strip(s, a.Get(0, "chars"), kRight)); }},
    {"split", [](const std::string& s,
                 const CallArgs& a) { return Value(Split(s, a.Get(0, "sep"), MaxSplit(a))); }},
    {"rsplit",
     [](const std::string& s, const CallArgs& a) {
       return Value(SplitRight(s, a.Get(0, "sep"), MaxSplit(a)));
     }},
    {"startswith", [](const std::string& s,
                      const CallArgs& a) { return Value(Affix(s, a.Get(0, "prefix"), true)); }},
    {"endswith", [](const std::string& s,
                    const CallArgs& a) { return Value(Affix(s, a.Get(0, "suffix"), false)); }},
    {"replace", [](const std::string& s, const CallArgs& a) { return Value(Replace(s, a)); }},
    {"upper",
     [](const std::string& s, const CallArgs&) { return Value(ChangeCase(s, Case::kUpper)); }},
    {"lower",
     [](const std::string& s, const CallArgs&) { return Value(ChangeCase(s, Case::kLower)); }},
    {"title",
     [](const std::string& s, const CallArgs&) { return Value(ChangeCase(s, Case::kTitle)); }},
    {"capitalize",
     [](const std::string& s, const CallArgs&) { return Value(ChangeCase(s, Case::kCapital)); }},
    {"find",
     [](const std::string& s, const CallArgs& a) {
       const size_t hit = s.find(WantString(a.Get(0, "sub"), "find"));
       return Value(hit == std::string::npos
                        ? int64_t{-1}
                        : static_cast<int64_t>(CodePoints(s.substr(0, hit)).size()));
     }},
};

List MapItems(const Map& map) {
  List items;
  for (const auto& [key, value] : map) items.emplace_back(List{Value(key), value});
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
  const std::string test = args.args.size() > first ? WantString(args.args[first], name) : "";
  CallArgs rest;
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
      out.push_back(ApplyFilter(WantString(args.Get(0, "filter"), "map"), item, rest));
    }
  }
  return Value(std::move(out));
}

Value Join(const Value& input, const CallArgs& args) {
  const std::string between = args.Get(0, "d", Value("")).Text();
  const Value attribute = args.Get(1, "attribute");
  std::string out;
  bool first = true;
  for (const Value& item : Iterate(input)) {
    if (!std::exchange(first, false)) out += between;
    out += (attribute.is_undefined() ? item : Attribute(item, attribute)).Text();
    if (static_cast<int64_t>(out.size()) > args.bytes_max)
      throw TemplateError("join: the result is too long");
  }
  return Value(std::move(out));
}

Value Indent(const Value& input, const CallArgs& args) {
  const Value width = args.Get(0, "width", Value(int64_t{4}));
  const std::string pad =
      width.is_string()
          ? *width.string()
          : std::string(static_cast<size_t>(std::clamp<int64_t>(WantInt(width, "indent"), 0, 1000)),
                        ' ');
  const bool first = args.Get(1, "first", Value(false)).Truthy();
  const bool blank = args.Get(2, "blank", Value(false)).Truthy();
  std::string out;
  bool at_first = true;
  for (const Value& line : Split(input.Text(), Value("\n"), -1)) {
    const std::string& text = *line.string();
    if (!at_first) out += '\n';
    if ((at_first ? first : true) && (blank || !text.empty() || (at_first && first))) out += pad;
    out += text;
    at_first = false;
    if (static_cast<int64_t>(out.size()) > args.bytes_max)
      throw TemplateError("indent: the result is too long");
  }
  return Value(std::move(out));
}

Value ToInt(const Value& input, const CallArgs& args) {
  if (input.is_float())
    return Value(static_cast<int64_t>(std::clamp(input.AsDouble(), -9e18, 9e18)));
  if (input.is_number()) return Value(input.AsInt());
  try {
    size_t used = 0;
    const int64_t parsed = std::stoll(input.Text(), &used);
    if (used == input.Text().size()) return Value(parsed);
  } catch (const std::exception&) {  // Not a number: the default, as in Jinja.
  }
  return args.Get(0, "default", Value(int64_t{0}));
}

Value Length(const Value& input) {
  if (const std::string* s = input.string())
    return Value(static_cast<int64_t>(CodePoints(*s).size()));
  if (input.is_none() || input.is_number()) {
    throw TemplateError(fmt::format("length: a {} has no length", input.TypeName()));
  }
  return Value(static_cast<int64_t>(Iterate(input).size()));
}

Value Reverse(const Value& input) {
  List items = Iterate(input);
  std::reverse(items.begin(), items.end());
  if (!input.is_string()) return Value(std::move(items));
  std::string text;
  for (const Value& item : items) text += *item.string();
  return Value(std::move(text));
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
    {"indent", Indent},
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
       return by != 0 && WantInt(v, "divisibleby") % by == 0;
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

bool HasMethod(const Value& self, std::string_view name) {
  if (self.is_string()) {
    return std::any_of(std::begin(kStringMethods), std::end(kStringMethods),
                       [&](const StringRow& row) { return row.name == name; });
  }
  return self.map() != nullptr &&
         (name == "items" || name == "keys" || name == "values" || name == "get");
}

Value CallMethod(const Value& self, const std::string& name, const CallArgs& args) {
  if (const std::string* text = self.string()) {
    for (const StringRow& row : kStringMethods) {
      if (row.name == name) return row.method(*text, args);
    }
  }
  if (const Map* map = self.map()) {
    if (name == "items") return Value(MapItems(*map));
    if (name == "get") {
      const Value* found = self.Find(WantString(args.Get(0, "key"), "get"));
      return found != nullptr ? *found : args.Get(1, "default", Value(None{}));
    }
    List out;
    for (const auto& [key, value] : *map) out.push_back(name == "keys" ? Value(key) : value);
    return Value(std::move(out));
  }
  throw TemplateError(fmt::format("a {} has no method '{}'", self.TypeName(), name));
}

Value ApplyFilter(const std::string& name, const Value& input, const CallArgs& args) {
  if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr") {
    return Select(name, input, args);
  }
  for (const FilterRow& row : kFilters) {
    if (row.name == (name == "d" ? "default" : name)) return row.filter(input, args);
  }
  throw TemplateError(fmt::format("the filter '{}' is not supported in chat templates", name));
}

bool ApplyTest(const std::string& name, const Value& input, const CallArgs& args) {
  for (const TestRow& row : kTests) {
    if (row.name == name) return row.test(input, args);
  }
  for (const std::string_view op : {"==", "!=", "<", "<=", ">", ">="}) {
    if (op == name) return CompareOp(name, input, args.Get(0, "other"));
  }
  throw TemplateError(fmt::format("the test '{}' is not supported in chat templates", name));
}

}  // namespace fathom::router::jinja
