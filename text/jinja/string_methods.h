// text/jinja/string_methods.h: what filters and methods do with strings, with Python's results.
// Literal bytes stay literal (str.h). Pure; throws TemplateError.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "text/jinja/eval.h"

namespace fathom::router::jinja {

// The value as what is asked for, or an error that names `what` (a filter, a method) and the type.
Str WantString(const Value& value, std::string_view what);
int64_t WantInt(const Value& value, std::string_view what);

enum Sides { kLeft = 1, kRight = 2, kBoth = 3 };
// str.strip: by white space, or by the code points of `chars` where that is a string.
Str Strip(const Str& text, const Value& chars, Sides sides);

// str.split and str.rsplit: at white space where `separator` is None or undefined. most < 0: every
// one.
List Split(const Str& text, const Value& separator, int64_t most);
List SplitRight(const Str& text, const Value& separator, int64_t most);

enum class Case { kUpper, kLower, kTitle, kCapital };
Str ChangeCase(const Str& text, Case to);

// Arguments: old, new, count.
Str Replace(const Str& text, const CallArgs& args);
// Arguments: width, first, blank.
Str Indent(const Str& text, const CallArgs& args);
Str ReverseText(const Str& text);

std::vector<std::string_view> StringMethodNames();
bool HasStringMethod(std::string_view name);
// REQUIRES: HasStringMethod(name).
Value CallStringMethod(const Str& self, const std::string& name, const CallArgs& args);

}  // namespace fathom::router::jinja
