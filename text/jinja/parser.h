// text/jinja/parser.h: parses tokens into a tree. The grammar is the subset of Jinja that published
// chat templates use (docs/API.md, "Chat templates"). Anything else is refused with its name and
// line, including calls of unknown functions and calls with wrong arguments (resolve.h). Pure;
// throws TemplateError.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace fathom::jinja {

inline constexpr int kParseDepthMax = 200;
inline constexpr int kExprHeightMax = 400;
// In one call. It is limited because filters can call one another.
inline constexpr size_t kArgumentsMax = 100;

Block Parse(std::string_view source);

}  // namespace fathom::jinja
