// Methods of strings, maps, lists and loops.
#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/string_methods.h"

namespace fathom::jinja {
namespace {

using Method = Value (*)(const Value& self, const CallArgs& args);
struct MethodRow {
  Signature signature;
  Method method;
};

Value Keys(const Value& self, const CallArgs& /*args*/) { return Value(Iterate(self)); }

Value Values(const Value& self, const CallArgs& /*args*/) {
  List out;
  for (const auto& [key, value] : *self.map()) out.push_back(value);
  return Value(std::move(out));
}

Value Get(const Value& self, const CallArgs& args) {
  const Value* found = self.FindKey(args.Get(0, "key"));
  return found != nullptr ? *found : args.Get(1, "default", Value(None{}));
}

Value Index(const Value& self, const CallArgs& args) {
  const List& list = *self.list();
  const auto found = std::find(list.begin(), list.end(), args.Get(0, "value"));
  if (found == list.end()) throw TemplateError("index: the list does not hold the value");
  return Value(static_cast<int64_t>(found - list.begin()));
}

Value Count(const Value& self, const CallArgs& args) {
  const List& list = *self.list();
  return Value(int64_t{std::count(list.begin(), list.end(), args.Get(0, "value"))});
}

// loop.cycle: `self` is the loop's index0.
Value Cycle(const Value& self, const CallArgs& args) {
  if (args.args.empty()) throw TemplateError("loop.cycle needs at least one value");
  return args.args[static_cast<size_t>(self.AsInt()) % args.args.size()];
}

constexpr MethodRow kMapMethods[] = {
    {{"items", ""}, [](const Value& v, const CallArgs&) { return Value(MapItems(*v.map())); }},
    {{"keys", ""}, Keys},
    {{"values", ""}, Values},
    {{"get", "key default? /"}, Get},
};
constexpr MethodRow kListMethods[] = {
    {{"index", "value /"}, Index},
    {{"count", "value /"}, Count},
};
constexpr MethodRow kLoopMethods[] = {{{"cycle", "* /"}, Cycle}};

constexpr std::string_view kChanging[] = {"append",  "clear",  "extend",     "insert", "pop",
                                          "popitem", "remove", "setdefault", "sort",   "update"};

std::span<const MethodRow> MethodsOf(const Value& self) {
  if (self.map() != nullptr) return kMapMethods;
  if (self.list() != nullptr) return kListMethods;
  if (self.is_int()) return kLoopMethods;
  return {};
}

constexpr std::span<const MethodRow> kTables[] = {kMapMethods, kListMethods, kLoopMethods};

}  // namespace

List MapItems(const Map& map) {
  List items;
  for (const auto& [key, value] : map) items.push_back(Value::Tuple({key, value}));
  return items;
}

std::vector<const Signature*> FindMethods(std::string_view name) {
  std::vector<const Signature*> found;
  if (const Signature* signature = FindStringMethod(name)) found.push_back(signature);
  for (const std::span<const MethodRow> rows : kTables) {
    if (const MethodRow* row = FindRow(rows, name)) found.push_back(&row->signature);
  }
  return found;
}

bool ChangesItsObject(std::string_view method) {
  return std::find(std::begin(kChanging), std::end(kChanging), method) != std::end(kChanging);
}

std::vector<std::string_view> MethodNames() {
  std::vector<std::string_view> names = StringMethodNames();
  for (const std::span<const MethodRow> rows : kTables) {
    for (const MethodRow& row : rows) names.push_back(row.signature.name);
  }
  return names;
}

bool HasMethod(const Value& self, std::string_view name) {
  if (self.is_string()) return FindStringMethod(name) != nullptr;
  return !self.is_int() && FindRow(MethodsOf(self), name) != nullptr;
}

Value CallMethod(const Value& self, const std::string& name, const CallArgs& args) {
  if (const Str* text = self.string()) return CallStringMethod(*text, name, args);
  const MethodRow* row = FindRow(MethodsOf(self), name);
  if (row == nullptr)
    throw TemplateError(fmt::format("a {} has no method '{}'", self.TypeName(), name));
  CheckCall("method", row->signature, args);
  return row->method(self, args);
}

}  // namespace fathom::jinja
