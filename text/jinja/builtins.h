// text/jinja/builtins.h: the filters, tests, methods and operators of the template language, by
// name, with Python's results. Each checks its arguments (signature.h). Pure; throws TemplateError.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/signature.h"
#include "text/jinja/value.h"

namespace fathom::jinja {

struct CallArgs {
  std::vector<Value> args;
  std::vector<std::pair<std::string, Value>> named;
  int64_t bytes_max = 0;  // The limit of each string that is made.

  // The positional argument `index`, or the argument with this name, or `fallback`.
  Value Get(size_t index, std::string_view name, Value fallback = {}) const;
  // The same, but None counts as no argument.
  Value GetSome(size_t index, std::string_view name) const;
  // The arguments without the first `count` positional ones.
  CallArgs After(size_t count) const;
};

// Throws if the signature does not accept the arguments. `kind` ("filter", "test", ...) is used in
// the message.
void CheckCall(std::string_view kind, const Signature& signature, const CallArgs& args);

// Finds a built-in by name. Null or empty: there is none.
const Signature* FindFilter(std::string_view name);
const Signature* FindTest(std::string_view name);
std::vector<const Signature*> FindMethods(std::string_view name);  // One for each type that has it.
// Methods that would change their object; the sandbox of chat templates refuses them.
bool ChangesItsObject(std::string_view method);
std::vector<std::string_view> FilterNames();
std::vector<std::string_view> TestNames();
std::vector<std::string_view> MethodNames();

bool HasMethod(const Value& self, std::string_view name);
Value CallMethod(const Value& self, const std::string& name, const CallArgs& args);
Value ApplyFilter(std::string_view name, const Value& input, const CallArgs& args);
bool ApplyTest(std::string_view name, const Value& input, const CallArgs& args);

// The functions that every template can call.
const Signature* FindFunction(std::string_view name);
std::vector<std::string_view> FunctionNames();
// `now_unix_s` is the time that strftime_now formats, in UTC.
Value CallFunction(std::string_view name, const CallArgs& args, int64_t now_unix_s);

// ---- Operators (operators.cc) ----

// The items over which a loop or filter iterates: the items of a list, the keys of a map, the
// characters of a string; none for undefined.
List Iterate(const Value& value);
Value Item(const Value& object, const Value& key);
Value Slice(const Value& object, const Value& start, const Value& stop, const Value& step);
bool Contains(const Value& container, const Value& item);
Value BinaryOp(const std::string& op, const Value& left, const Value& right, int64_t bytes_max);
bool CompareOp(std::string_view op, const Value& left, const Value& right);
// (key, value) tuples.
List MapItems(const Map& map);

// ---- For the tables of built-ins ----

using Filter = Value (*)(const Value& input, const CallArgs& args);
struct FilterRow {
  Signature signature;
  Filter filter;
};
std::span<const FilterRow> NumberFilters();    // number_filters.cc
std::span<const FilterRow> SequenceFilters();  // sequence_filters.cc

// Returns the value as the wanted type, or throws an error that names `what` (a filter, a method)
// and the type.
Str WantString(const Value& value, std::string_view what);
int64_t WantInt(const Value& value, std::string_view what);

// format % args, with Python's result. `args` is the items of a tuple, the entries of a map, or one
// value.
Str PercentFormat(const Str& format, const Value& args, int64_t bytes_max);

}  // namespace fathom::jinja
