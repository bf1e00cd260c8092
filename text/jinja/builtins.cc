// Filters, and the checks of arguments that all built-ins share.
#include "text/jinja/builtins.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "text/jinja/json.h"
#include "text/jinja/string_methods.h"

namespace fathom::jinja {
namespace {

// The argument `indent` of tojson: a text for each level, from a text or a number of spaces.
std::optional<Str> IndentOf(const Value& indent) {
  if (indent.is_undefined() || indent.is_none()) return std::nullopt;
  if (indent.is_string()) return *indent.string();
  const int64_t spaces = std::clamp<int64_t>(WantInt(indent, "tojson"), 0, 64);
  return Str(std::string(static_cast<size_t>(spaces), ' '));
}

Value ToJson(const Value& input, const CallArgs& args) {
  JsonFormat format;
  format.ensure_ascii = args.Get(0, "ensure_ascii").Truthy();
  format.indent = IndentOf(args.Get(1, "indent"));
  format.sort_keys = args.Get(3, "sort_keys").Truthy();
  if (format.indent) format.item_separator = Str(",");
  const Value separators = args.GetSome(2, "separators");
  if (!separators.is_undefined()) {
    const List both = Iterate(separators);
    if (both.size() != 2)
      throw TemplateError("tojson: separators are two texts, of items and keys");
    format.item_separator = WantString(both[0], "tojson");
    format.key_separator = WantString(both[1], "tojson");
  }
  return Value(WriteJson(input, format, args.bytes_max));
}

Value Default(const Value& input, const CallArgs& args) {
  const bool falsy = args.Get(1, "boolean", Value(false)).Truthy() && !input.Truthy();
  return input.is_undefined() || falsy ? args.Get(0, "default_value", Value("")) : input;
}

Value Items(const Value& input, const CallArgs& /*args*/) {
  if (input.is_undefined()) return Value(List{});
  if (input.map() == nullptr)
    throw TemplateError(fmt::format("items needs a mapping, got a {}", input.TypeName()));
  return Value(MapItems(*input.map()));
}

Value Format(const Value& input, const CallArgs& args) {
  if (args.named.empty())
    return Value(PercentFormat(input.Text(), Value::Tuple(args.args), args.bytes_max));
  if (!args.args.empty())
    throw TemplateError("format takes arguments by place or by name, not both at once");
  MapBuilder named;
  for (const auto& [name, value] : args.named) named.Set(name, value);
  return Value(PercentFormat(input.Text(), Value(named.Take()), args.bytes_max));
}

Value Attr(const Value& input, const CallArgs& args) {
  // Python's `attr` finds only attributes, and our values have no attributes except methods.
  const Str name = WantString(args.Get(0, "name"), "attr");
  if (HasMethod(input, name.view()))
    return Value(Callable{name.str(), std::make_shared<const Value>(input)});
  if (input.name_space() != nullptr) return Item(input, Value(name));
  if (input.is_undefined()) return Item(input, Value(name));
  return Value(Undefined{name.str()});
}

constexpr FilterRow kFilters[] = {
    {{"tojson", "ensure_ascii? indent? separators? sort_keys?"}, ToJson},
    {{"trim", "chars?"},
     [](const Value& v, const CallArgs& a) {
       return Value(Strip(v.Text(), a.Get(0, "chars"), kBoth));
     }},
    {{"default", "default_value? boolean?"}, Default},
    {{"d", "default_value? boolean?"}, Default},
    {{"items", ""}, Items},
    {{"string", ""}, [](const Value& v, const CallArgs&) { return Value(v.Text()); }},
    {{"attr", "name"}, Attr},
    {{"format", "* **"}, Format},
    {{"indent", "width? first? blank?"},
     [](const Value& v, const CallArgs& a) { return Value(Indent(v.Text(), a)); }},
    {{"replace", "old new count?"},
     [](const Value& v, const CallArgs& a) {
       return Value(Replace(v.Text(), a.Get(0, "old").Text(), a.Get(1, "new").Text(),
                            a.GetSome(2, "count"), a.bytes_max));
     }},
    {{"upper", ""},
     [](const Value& v, const CallArgs&) { return Value(ChangeCase(v.Text(), Case::kUpper)); }},
    {{"lower", ""},
     [](const Value& v, const CallArgs&) { return Value(ChangeCase(v.Text(), Case::kLower)); }},
    {{"title", ""}, [](const Value& v, const CallArgs&) { return Value(TitleFilter(v.Text())); }},
    {{"capitalize", ""},
     [](const Value& v, const CallArgs&) { return Value(ChangeCase(v.Text(), Case::kCapital)); }},
    {{"center", "width?"},
     [](const Value& v, const CallArgs& a) {
       return Value(Pad(v.Text(), WantInt(a.Get(0, "width", Value(int64_t{80})), "center"),
                        Str(" "), kBoth, a.bytes_max));
     }},
    {{"wordcount", ""}, [](const Value& v, const CallArgs&) { return Value(WordCount(v.Text())); }},
    {{"safe", ""}, [](const Value& v, const CallArgs&) { return v; }},
};

const FilterRow* FindFilterRow(std::string_view name) {
  for (const std::span<const FilterRow> rows :
       {std::span<const FilterRow>(kFilters), NumberFilters(), SequenceFilters()}) {
    if (const FilterRow* row = FindRow(rows, name)) return row;
  }
  return nullptr;
}

}  // namespace

Value CallArgs::Get(size_t index, std::string_view name, Value fallback) const {
  if (index < args.size()) return args[index];
  for (const auto& [key, value] : named) {
    if (key == name) return value;
  }
  return fallback;
}

Value CallArgs::GetSome(size_t index, std::string_view name) const {
  Value value = Get(index, name);
  return value.is_none() ? Value() : value;
}

CallArgs CallArgs::After(size_t count) const {
  CallArgs rest;
  rest.bytes_max = bytes_max;
  rest.named = named;
  for (size_t i = count; i < args.size(); ++i) rest.args.push_back(args[i]);
  return rest;
}

void CheckCall(std::string_view kind, const Signature& signature, const CallArgs& args) {
  std::vector<std::string_view> names;
  for (const auto& [name, value] : args.named) names.push_back(name);
  const std::string error = CallError(signature, args.args.size(), names);
  if (!error.empty())
    throw TemplateError(fmt::format("the {} '{}' {}", kind, signature.name, error));
}

const Signature* FindFilter(std::string_view name) {
  const FilterRow* row = FindFilterRow(name);
  return row != nullptr ? &row->signature : nullptr;
}

std::vector<std::string_view> FilterNames() {
  std::vector<std::string_view> names;
  for (const std::span<const FilterRow> rows :
       {std::span<const FilterRow>(kFilters), NumberFilters(), SequenceFilters()}) {
    for (const FilterRow& row : rows) names.push_back(row.signature.name);
  }
  return names;
}

Value ApplyFilter(std::string_view name, const Value& input, const CallArgs& args) {
  const FilterRow* row = FindFilterRow(name);
  if (row == nullptr)
    throw TemplateError(fmt::format("the filter '{}' is not supported in chat templates", name));
  CheckCall("filter", row->signature, args);
  return row->filter(input, args);
}

Str WantString(const Value& value, std::string_view what) {
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

}  // namespace fathom::jinja
