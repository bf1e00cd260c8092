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

namespace fathom::router::jinja {

struct CallArgs {
  std::vector<Value> args;
  std::vector<std::pair<std::string, Value>> named;
  int64_t bytes_max = 0;  // Of any one string that is made.

  // Argument `index`, or the named one, or `fallback`.
  Value Get(size_t index, std::string_view name, Value fallback = {}) const;
  // Likewise, where None means the same as no argument.
  Value GetSome(size_t index, std::string_view name) const;
  // Without the first `count` positional arguments.
  CallArgs After(size_t count) const;
};

// Throws unless the signature takes the arguments; `kind` ("filter", "test", ...) is for the
// message.
void CheckCall(std::string_view kind, const Signature& signature, const CallArgs& args);

// What there is, by name. Null or empty: nothing of this name.
const Signature* FindFilter(std::string_view name);
const Signature* FindTest(std::string_view name);
std::vector<const Signature*> FindMethods(std::string_view name);  // One for each type that has it.
// Methods that would change their object, which the sandbox of chat templates refuses.
bool ChangesItsObject(std::string_view method);
std::vector<std::string_view> FilterNames();
std::vector<std::string_view> TestNames();
std::vector<std::string_view> MethodNames();

bool HasMethod(const Value& self, std::string_view name);
Value CallMethod(const Value& self, const std::string& name, const CallArgs& args);
Value ApplyFilter(std::string_view name, const Value& input, const CallArgs& args);
bool ApplyTest(std::string_view name, const Value& input, const CallArgs& args);

// The functions that every template sees.
const Signature* FindFunction(std::string_view name);
std::vector<std::string_view> FunctionNames();
// `now_unix_s`: what strftime_now formats, in UTC.
Value CallFunction(std::string_view name, const CallArgs& args, int64_t now_unix_s);

// ---- Operators (operators.cc) ----

// The items that a loop or filter walks: a list's items, a map's keys, a string's characters,
// nothing of undefined.
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

// The value as what is asked for, or an error that names `what` (a filter, a method) and the type.
Str WantString(const Value& value, std::string_view what);
int64_t WantInt(const Value& value, std::string_view what);

// format % args, as Python formats a string. `args`: a tuple's items, a map's entries, or one
// value.
Str PercentFormat(const Str& format, const Value& args, int64_t bytes_max);

}  // namespace fathom::router::jinja
