// text/jinja/eval.h: renders a parsed template. Steps, nesting and bytes are limited, so no
// template and no message can block a thread: an endless template ends with an error. Pure; throws
// TemplateError.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/cancel.h"
#include "text/jinja/ast.h"

namespace fathom::jinja {

// Not a TemplateError, because the template has no error.
struct RenderCancelled {};

struct EvalLimits {
  int64_t steps_max = 2'000'000;         // Evaluated expressions and statements.
  int depth_max = 400;                   // Nested evaluations.
  int64_t bytes_max = int64_t{8} << 20;  // The limit of the output and of each string.
  CancelFn cancelled = {};  // Called now and then; if it returns true, RenderCancelled is thrown.
};

// The template's variables, by name.
using Variables = std::vector<std::pair<std::string, Value>>;

// `now_unix_s` is the time that strftime_now formats, in UTC.
Str Render(const Block& block, const Variables& globals, int64_t now_unix_s,
           const EvalLimits& limits);

}  // namespace fathom::jinja
