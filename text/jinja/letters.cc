// Properties of letters in Unicode, as Python's strings use them.
#include <utf8proc.h>

#include <algorithm>
#include <map>
#include <string>

#include "text/jinja/string_methods.h"

namespace fathom::jinja {
namespace {

// Letters whose upper or title case has several characters: letter, upper, title (SpecialCasing of
// Unicode).
constexpr std::string_view kSeveral =
    "\u00DF SS Ss \u0149 \u02BCN \u02BCN \u01F0 J\u030C J\u030C "
    "\u0390 \u0399\u0308\u0301 \u0399\u0308\u0301 \u03B0 \u03A5\u0308\u0301 \u03A5\u0308\u0301 "
    "\u0587 \u0535\u0552 \u0535\u0582 \u1E96 H\u0331 H\u0331 \u1E97 T\u0308 T\u0308 "
    "\u1E98 W\u030A W\u030A \u1E99 Y\u030A Y\u030A \u1E9A A\u02BE A\u02BE "
    "\u1F50 \u03A5\u0313 \u03A5\u0313 \u1F52 \u03A5\u0313\u0300 \u03A5\u0313\u0300 "
    "\u1F54 \u03A5\u0313\u0301 \u03A5\u0313\u0301 \u1F56 \u03A5\u0313\u0342 \u03A5\u0313\u0342 "
    "\u1F80 \u1F08\u0399 \u1F88 \u1F81 \u1F09\u0399 \u1F89 \u1F82 \u1F0A\u0399 \u1F8A "
    "\u1F83 \u1F0B\u0399 \u1F8B \u1F84 \u1F0C\u0399 \u1F8C \u1F85 \u1F0D\u0399 \u1F8D "
    "\u1F86 \u1F0E\u0399 \u1F8E \u1F87 \u1F0F\u0399 \u1F8F \u1F88 \u1F08\u0399 \u1F88 "
    "\u1F89 \u1F09\u0399 \u1F89 \u1F8A \u1F0A\u0399 \u1F8A \u1F8B \u1F0B\u0399 \u1F8B "
    "\u1F8C \u1F0C\u0399 \u1F8C \u1F8D \u1F0D\u0399 \u1F8D \u1F8E \u1F0E\u0399 \u1F8E "
    "\u1F8F \u1F0F\u0399 \u1F8F \u1F90 \u1F28\u0399 \u1F98 \u1F91 \u1F29\u0399 \u1F99 "
    "\u1F92 \u1F2A\u0399 \u1F9A \u1F93 \u1F2B\u0399 \u1F9B \u1F94 \u1F2C\u0399 \u1F9C "
    "\u1F95 \u1F2D\u0399 \u1F9D \u1F96 \u1F2E\u0399 \u1F9E \u1F97 \u1F2F\u0399 \u1F9F "
    "\u1F98 \u1F28\u0399 \u1F98 \u1F99 \u1F29\u0399 \u1F99 \u1F9A \u1F2A\u0399 \u1F9A "
    "\u1F9B \u1F2B\u0399 \u1F9B \u1F9C \u1F2C\u0399 \u1F9C \u1F9D \u1F2D\u0399 \u1F9D "
    "\u1F9E \u1F2E\u0399 \u1F9E \u1F9F \u1F2F\u0399 \u1F9F \u1FA0 \u1F68\u0399 \u1FA8 "
    "\u1FA1 \u1F69\u0399 \u1FA9 \u1FA2 \u1F6A\u0399 \u1FAA \u1FA3 \u1F6B\u0399 \u1FAB "
    "\u1FA4 \u1F6C\u0399 \u1FAC \u1FA5 \u1F6D\u0399 \u1FAD \u1FA6 \u1F6E\u0399 \u1FAE "
    "\u1FA7 \u1F6F\u0399 \u1FAF \u1FA8 \u1F68\u0399 \u1FA8 \u1FA9 \u1F69\u0399 \u1FA9 "
    "\u1FAA \u1F6A\u0399 \u1FAA \u1FAB \u1F6B\u0399 \u1FAB \u1FAC \u1F6C\u0399 \u1FAC "
    "\u1FAD \u1F6D\u0399 \u1FAD \u1FAE \u1F6E\u0399 \u1FAE \u1FAF \u1F6F\u0399 \u1FAF "
    "\u1FB2 \u1FBA\u0399 \u1FBA\u0345 \u1FB3 \u0391\u0399 \u1FBC "
    "\u1FB4 \u0386\u0399 \u0386\u0345 \u1FB6 \u0391\u0342 \u0391\u0342 "
    "\u1FB7 \u0391\u0342\u0399 \u0391\u0342\u0345 \u1FBC \u0391\u0399 \u1FBC "
    "\u1FC2 \u1FCA\u0399 \u1FCA\u0345 \u1FC3 \u0397\u0399 \u1FCC "
    "\u1FC4 \u0389\u0399 \u0389\u0345 \u1FC6 \u0397\u0342 \u0397\u0342 "
    "\u1FC7 \u0397\u0342\u0399 \u0397\u0342\u0345 \u1FCC \u0397\u0399 \u1FCC "
    "\u1FD2 \u0399\u0308\u0300 \u0399\u0308\u0300 \u1FD3 \u0399\u0308\u0301 \u0399\u0308\u0301 "
    "\u1FD6 \u0399\u0342 \u0399\u0342 \u1FD7 \u0399\u0308\u0342 \u0399\u0308\u0342 "
    "\u1FE2 \u03A5\u0308\u0300 \u03A5\u0308\u0300 \u1FE3 \u03A5\u0308\u0301 \u03A5\u0308\u0301 "
    "\u1FE4 \u03A1\u0313 \u03A1\u0313 \u1FE6 \u03A5\u0342 \u03A5\u0342 "
    "\u1FE7 \u03A5\u0308\u0342 \u03A5\u0308\u0342 \u1FF2 \u1FFA\u0399 \u1FFA\u0345 "
    "\u1FF3 \u03A9\u0399 \u1FFC \u1FF4 \u038F\u0399 \u038F\u0345 "
    "\u1FF6 \u03A9\u0342 \u03A9\u0342 \u1FF7 \u03A9\u0342\u0399 \u03A9\u0342\u0345 "
    "\u1FFC \u03A9\u0399 \u1FFC \uFB00 FF Ff \uFB01 FI Fi \uFB02 FL Fl \uFB03 FFI Ffi "
    "\uFB04 FFL Ffl \uFB05 ST St \uFB06 ST St \uFB13 \u0544\u0546 \u0544\u0576 "
    "\uFB14 \u0544\u0535 \u0544\u0565 \uFB15 \u0544\u053B \u0544\u056B "
    "\uFB16 \u054E\u0546 \u054E\u0576 \uFB17 \u0544\u053D \u0544\u056D";

struct Mapping {
  std::string_view upper, title;
};

const std::map<std::string_view, Mapping>& Several() {
  static const auto* const kMap = [] {
    auto* map = new std::map<std::string_view, Mapping>();
    std::string_view rest = kSeveral;
    const auto word = [&rest] {
      const size_t end = std::min(rest.find(' '), rest.size());
      const std::string_view found = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      return found;
    };
    while (!rest.empty()) {
      const std::string_view letter = word(), upper = word(), title = word();
      map->emplace(letter, Mapping{upper, title});
    }
    return map;
  }();
  return *kMap;
}

utf8proc_int32_t CodeOf(std::string_view point) {
  return static_cast<utf8proc_int32_t>(CodePointAt(point));
}

utf8proc_category_t CategoryOf(std::string_view point) { return utf8proc_category(CodeOf(point)); }

bool Cased(std::string_view point) {
  const utf8proc_int32_t code = CodeOf(point);
  const utf8proc_category_t category = utf8proc_category(code);
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
         category == UTF8PROC_CATEGORY_LT || utf8proc_toupper(code) != code ||
         utf8proc_tolower(code) != code;
}

bool CaseIgnorable(std::string_view point) {
  const utf8proc_category_t category = CategoryOf(point);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_ME ||
         category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_LM ||
         category == UTF8PROC_CATEGORY_SK || point == "'" || point == "." || point == ":" ||
         point == "\u2019" || point == "\u00B7";
}

// Whether the sigma at `at` ends a word; its lower case is then different.
bool FinalSigma(const std::vector<std::string_view>& points, size_t at) {
  size_t before = at, after = at + 1;
  while (before > 0 && CaseIgnorable(points[before - 1])) --before;
  if (before == 0 || !Cased(points[before - 1])) return false;
  while (after < points.size() && CaseIgnorable(points[after])) ++after;
  return after == points.size() || !Cased(points[after]);
}

std::string Encoded(utf8proc_int32_t code) {
  std::string out;
  AppendUtf8(static_cast<uint32_t>(code), &out);
  return out;
}

std::string Upper(std::string_view point) {
  if (const auto it = Several().find(point); it != Several().end())
    return std::string(it->second.upper);
  return Encoded(utf8proc_toupper(CodeOf(point)));
}

std::string Title(std::string_view point) {
  if (const auto it = Several().find(point); it != Several().end())
    return std::string(it->second.title);
  return Encoded(utf8proc_totitle(CodeOf(point)));
}

std::string Lower(const std::vector<std::string_view>& points, size_t at) {
  if (points[at] == "\u0130") return "i\u0307";
  if (points[at] == "\u03A3") return FinalSigma(points, at) ? "\u03C2" : "\u03C3";
  return Encoded(utf8proc_tolower(CodeOf(points[at])));
}

// Applies `change` to each character of `text`; the result of a literal character is literal.
template <class Change>
Str Changed(const Str& text, const Change& change) {
  StrBuilder out;
  size_t at = 0;
  text.ForEachRun([&](std::string_view run, bool literal) {
    std::string changed;
    const size_t count = CodePoints(run).size();
    for (size_t i = 0; i < count; ++i) changed += change(at++);
    out.AppendAs(changed, literal);
  });
  return out.Take();
}

bool IsUpper(std::string_view point) {
  const utf8proc_category_t category = CategoryOf(point);
  return category == UTF8PROC_CATEGORY_LU ||
         (category != UTF8PROC_CATEGORY_LT && utf8proc_tolower(CodeOf(point)) != CodeOf(point));
}

bool IsOf(std::string_view point, Kind kind) {
  size_t size = 0;
  const utf8proc_category_t category = CategoryOf(point);
  const bool letter = category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
  const bool decimal = category == UTF8PROC_CATEGORY_ND;
  const bool numeric =
      decimal || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
  static constexpr std::string_view kHigh = "\u00B2\u00B3\u00B9";
  switch (kind) {
    case Kind::kLetter:
      return letter;
    case Kind::kDecimal:
      return decimal;
    case Kind::kDigit:
      return decimal || kHigh.find(point) != kHigh.npos ||
             (CodeOf(point) >= 0x2070 && CodeOf(point) <= 0x2089 && numeric);
    case Kind::kNumeric:
      return numeric;
    case Kind::kLetterOrNumber:
      return letter || numeric;
    case Kind::kSpace:
      return IsSpaceAt(point, &size);
  }
  return false;
}

}  // namespace

Str ChangeCase(const Str& text, Case to) {
  const std::vector<std::string_view> points = CodePoints(text.view());
  bool in_word = false;
  return Changed(text, [&](size_t at) {
    const std::string_view point = points[at];
    switch (to) {
      case Case::kUpper:
        return Upper(point);
      case Case::kLower:
        return Lower(points, at);
      case Case::kCapital:
        return at == 0 ? Title(point) : Lower(points, at);
      case Case::kSwap:
        if (CategoryOf(point) == UTF8PROC_CATEGORY_LT) return std::string(point);
        return IsUpper(point) ? Lower(points, at) : Upper(point);
      case Case::kTitle:
        break;
    }
    const bool begins = !std::exchange(in_word, Cased(point));
    return begins ? Title(point) : Lower(points, at);
  });
}

Str TitleFilter(const Str& text) {
  // Words end at white space and at these characters. In each word all letters after the first
  // become lower case.
  StrBuilder out;
  const std::string_view view = text.view();
  const auto separates = [&](size_t at, size_t* size) {
    *size = 1;
    return std::string_view("-({[<").find(view[at]) != std::string_view::npos ||
           IsSpaceAt(view.substr(at), size);
  };
  for (size_t at = 0; at < view.size();) {
    size_t size = 0, end = at;
    const bool separator = separates(at, &size);
    while (end < view.size() && separates(end, &size) == separator) end += size;
    if (separator) {
      out.Append(text.Slice(at, end));
    } else {
      const size_t first = at + CodePoints(view.substr(at, 4))[0].size();
      out.Append(ChangeCase(text.Slice(at, first), Case::kUpper));
      out.Append(ChangeCase(text.Slice(first, end), Case::kLower));
    }
    at = end;
  }
  return out.Take();
}

bool IsCased(const Str& text, Case which) {
  bool any = false;
  for (const std::string_view point : CodePoints(text.view())) {
    if (!Cased(point)) continue;
    if (IsUpper(point) != (which == Case::kUpper)) return false;
    if (CategoryOf(point) == UTF8PROC_CATEGORY_LT) return false;
    any = true;
  }
  return any;
}

bool AllOf(const Str& text, Kind kind) {
  const std::vector<std::string_view> points = CodePoints(text.view());
  return !points.empty() && std::all_of(points.begin(), points.end(),
                                        [&](std::string_view point) { return IsOf(point, kind); });
}

int64_t WordCount(const Str& text) {
  int64_t words = 0;
  bool in_word = false;
  for (const std::string_view point : CodePoints(text.view())) {
    const bool part = point == "_" || IsOf(point, Kind::kLetterOrNumber);
    words += part && !in_word ? 1 : 0;
    in_word = part;
  }
  return words;
}

}  // namespace fathom::jinja
