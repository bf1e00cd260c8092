// text/jinja/resolve.h: checks a parsed template before it is rendered: every filter, test, method
// and function in it must exist and accept its arguments. Errors that depend on a value (a method
// that the value does not have) are found while rendering. Pure; throws TemplateError with the
// line.
#pragma once

#include "text/jinja/ast.h"

namespace fathom::jinja {

void Resolve(const Block& block);

}  // namespace fathom::jinja
