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

}  // namespace fathom::router::jinja
