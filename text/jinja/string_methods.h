// text/jinja/string_methods.h: the string operations of filters and methods, with Python's results.
// Literal bytes stay literal (str.h). Pure; throws TemplateError.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/builtins.h"

namespace fathom::jinja {

enum Sides { kLeft = 1, kRight = 2, kBoth = 3 };
// str.strip: removes white space, or the code points of `chars` if it is a string.
Str Strip(const Str& text, const Value& chars, Sides sides);

// str.split and str.rsplit. They split at white space if `separator` is None or undefined. most <
// 0: no limit.
List Split(const Str& text, const Value& separator, int64_t most);
List SplitRight(const Str& text, const Value& separator, int64_t most);
List SplitLines(const Str& text, bool keep_ends);

// `count` undefined: all.
Str Replace(const Str& text, const Str& from, const Str& to, const Value& count, int64_t bytes_max);
// The arguments are width, first, blank.
Str Indent(const Str& text, const CallArgs& args);
Str ReverseText(const Str& text);
// Fills with `fill` (one character) on these sides, up to `width` code points.
Str Pad(const Str& text, int64_t width, const Str& fill, Sides sides, int64_t bytes_max);

const Signature* FindStringMethod(std::string_view name);  // Null: none.
std::vector<std::string_view> StringMethodNames();
Value CallStringMethod(const Str& self, const std::string& name, const CallArgs& args);

// ---- Letters (letters.cc) ----

enum class Case { kUpper, kLower, kTitle, kCapital, kSwap };
// str.upper and so on, including letters whose other case has several letters ("ß" to "SS").
Str ChangeCase(const Str& text, Case to);
// The filter `title`, whose words differ from those of str.title.
Str TitleFilter(const Str& text);
// str.islower, str.isupper.
bool IsCased(const Str& text, Case which);

enum class Kind { kLetter, kDecimal, kDigit, kNumeric, kLetterOrNumber, kSpace };
// str.isalpha and so on: there is at least one character, and all are of the kind.
bool AllOf(const Str& text, Kind kind);
int64_t WordCount(const Str& text);

}  // namespace fathom::jinja
