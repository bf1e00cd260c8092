// text/jinja/parser.h: tokens to a tree. The grammar is the subset of Jinja that published
// chat templates use (docs/API.md, "Chat templates"); anything else is refused by name and line,
// also calls of what is not there or does not take the arguments (resolve.h). Pure; throws
// TemplateError.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace fathom::router::jinja {

inline constexpr int kParseDepthMax = 200;
inline constexpr int kExprHeightMax = 400;
inline constexpr size_t kArgumentsMax = 100;  // Of one call; filters may apply one another.

Block Parse(std::string_view source);

}  // namespace fathom::router::jinja
