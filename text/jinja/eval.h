// text/jinja/eval.h: renders a parsed template. Bounded in steps, nesting and bytes, so that
// no template and no message can hold a thread: a template that goes on for ever ends with an
// error. Pure; throws TemplateError.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/cancel.h"
#include "text/jinja/ast.h"

namespace fathom::router::jinja {

// Not a TemplateError: no template is at fault.
struct RenderCancelled {};

struct EvalLimits {
  int64_t steps_max = 2'000'000;         // Expressions and statements evaluated.
  int depth_max = 400;                   // Nested evaluations.
  int64_t bytes_max = int64_t{8} << 20;  // Of the output and of any one string.
  CancelFn cancelled = {};  // Asked now and then; when true, RenderCancelled is thrown.
};

// The template's variables, by name.
using Variables = std::vector<std::pair<std::string, Value>>;

// `now_unix_s`: what strftime_now formats, in UTC.
Str Render(const Block& block, const Variables& globals, int64_t now_unix_s,
           const EvalLimits& limits);

// ---- Built-ins (builtins.cc), called by the evaluator ----

struct CallArgs {
  std::vector<Value> args;
  std::vector<std::pair<std::string, Value>> named;
  int64_t bytes_max = 0;

  // Argument `index`, or the named one, or `fallback`.
  Value Get(size_t index, std::string_view name, Value fallback = {}) const;
};

// What there is, by name.
std::vector<std::string_view> FilterNames();
std::vector<std::string_view> TestNames();
std::vector<std::string_view> MethodNames();  // Of strings and of maps.

bool HasMethod(const Value& self, std::string_view name);
Value CallMethod(const Value& self, const std::string& name, const CallArgs& args);
Value ApplyFilter(const std::string& name, const Value& input, const CallArgs& args);
bool ApplyTest(const std::string& name, const Value& input, const CallArgs& args);
// The items that a loop or filter walks: a list's items, a map's keys, a string's characters,
// nothing of undefined.
List Iterate(const Value& value);
Value Item(const Value& object, const Value& key);
Value Slice(const Value& object, const Value& start, const Value& stop, const Value& step);
bool Contains(const Value& container, const Value& item);
Value BinaryOp(const std::string& op, const Value& left, const Value& right, int64_t bytes_max);
bool CompareOp(const std::string& op, const Value& left, const Value& right);

}  // namespace fathom::router::jinja
