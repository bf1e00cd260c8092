// text/jinja/resolve.h: checks a parsed template before anything is rendered: every filter, test,
// method and function that it names is there and takes the arguments. What depends on a value (a
// method of a value that has no such method) is found while rendering. Pure; throws TemplateError
// with the line.
#pragma once

#include "text/jinja/ast.h"

namespace fathom::router::jinja {

void Resolve(const Block& block);

}  // namespace fathom::router::jinja
