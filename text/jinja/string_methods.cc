#include "text/jinja/string_methods.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

namespace fathom::jinja {
namespace {

void CheckSize(const StrBuilder& out, int64_t bytes_max, std::string_view what) {
  if (static_cast<int64_t>(out.size()) > bytes_max) {
    throw TemplateError(fmt::format("{}: the result is too long", what));
  }
}

List SplitAtSpace(const Str& text, int64_t most) {
  const std::string_view view = text.view();
  List parts;
  size_t at = 0;
  const auto skip = [&] {
    size_t size = 0;
    while (at < view.size() && IsSpaceAt(view.substr(at), &size)) at += size;
  };
  for (skip(); at < view.size(); skip()) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) == most) {
      parts.emplace_back(text.From(at));
      break;
    }
    size_t end = at, size = 0;
    while (end < view.size() && !IsSpaceAt(view.substr(end), &size)) end += size;
    parts.emplace_back(text.Slice(at, end));
    at = end;
  }
  return parts;
}

List SplitRightAtSpace(const Str& text, int64_t most) {
  const std::vector<std::string_view> points = CodePoints(text.view());
  size_t at = points.size(), end = text.size();  // The end of the last code point that is left.
  const auto take_while = [&](bool space) {
    size_t size = 0;
    while (at > 0 && IsSpaceAt(points[at - 1], &size) == space) end -= points[--at].size();
  };
  List parts;
  for (take_while(true); at > 0; take_while(true)) {
    const size_t word_end = end;
    if (static_cast<int64_t>(parts.size()) == most) {
      parts.emplace_back(text.Slice(0, word_end));
      break;
    }
    take_while(false);
    parts.emplace_back(text.Slice(end, word_end));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

// The byte range that the arguments `start` and `end` select; nullopt if the start is after the
// end, because then not even the empty text is found.
std::optional<ByteSpan> Window(std::string_view text, const CallArgs& args, size_t first) {
  const Value start = args.GetSome(first, ""), end = args.GetSome(first + 1, "");
  if (start.is_undefined() && end.is_undefined()) return ByteSpan{0, text.size()};
  const std::vector<std::string_view> points = CodePoints(text);
  const auto size = static_cast<int64_t>(points.size());
  const auto place = [&](const Value& at, int64_t fallback) {
    const int64_t given = at.is_undefined() ? fallback : WantInt(at, "start and end");
    return given < 0 ? std::max<int64_t>(0, given + size) : given;
  };
  const int64_t from = place(start, 0), to = std::min(place(end, size), size);
  if (from > to) return std::nullopt;
  const auto offset = [&](int64_t at) {
    return at == size ? text.size()
                      : static_cast<size_t>(points[static_cast<size_t>(at)].data() - text.data());
  };
  return ByteSpan{offset(from), offset(to)};
}

// startswith and endswith with one text or a tuple of texts.
bool Affix(std::string_view text, const Value& affix, bool front) {
  if (const List* several = affix.list(); several != nullptr && affix.is_tuple()) {
    return std::any_of(several->begin(), several->end(), [&](const Value& v) {
      const Str one = WantString(v, front ? "startswith" : "endswith");
      return front ? text.starts_with(one.view()) : text.ends_with(one.view());
    });
  }
  return Affix(text, Value::Tuple({affix}), front);
}

template <bool kFront>
Value HasAffix(const Str& text, const CallArgs& args) {
  const std::optional<ByteSpan> window = Window(text.view(), args, 1);
  const std::string_view part =
      window ? text.view().substr(window->begin, window->end - window->begin) : "";
  const bool has = Affix(part, args.Get(0, "prefix"), kFront);
  return Value(has && window);
}

// find and rfind; index and rindex, which raise an error if nothing is found.
template <bool kLast, bool kMust>
Value Find(const Str& text, const CallArgs& args) {
  const Str sub = WantString(args.Get(0, "sub"), "find");
  size_t hit = std::string_view::npos;
  if (const std::optional<ByteSpan> window = Window(text.view(), args, 1)) {
    const std::string_view part = text.view().substr(window->begin, window->end - window->begin);
    hit = kLast ? part.rfind(sub.view()) : part.find(sub.view());
    if (hit != part.npos) hit += window->begin;
  }
  if (hit != std::string_view::npos)
    return Value(static_cast<int64_t>(CodePoints(text.view().substr(0, hit)).size()));
  if (kMust) throw TemplateError("index: the text does not hold the other one");
  return Value(int64_t{-1});
}

Value Count(const Str& text, const CallArgs& args) {
  const Str sub = WantString(args.Get(0, "sub"), "count");
  const std::optional<ByteSpan> window = Window(text.view(), args, 1);
  if (!window) return Value(int64_t{0});
  const std::string_view part = text.view().substr(window->begin, window->end - window->begin);
  if (sub.empty()) return Value(static_cast<int64_t>(CodePoints(part).size()) + 1);
  int64_t count = 0;
  for (size_t hit = part.find(sub.view()); hit != part.npos;
       hit = part.find(sub.view(), hit + sub.size()))
    ++count;
  return Value(count);
}

Value RemovePrefix(const Str& text, const CallArgs& args) {
  const Str prefix = WantString(args.Get(0, "prefix"), "removeprefix");
  return Value(text.view().starts_with(prefix.view()) ? text.From(prefix.size()) : text);
}

Value RemoveSuffix(const Str& text, const CallArgs& args) {
  const Str suffix = WantString(args.Get(0, "suffix"), "removesuffix");
  return Value(text.view().ends_with(suffix.view()) ? text.Slice(0, text.size() - suffix.size())
                                                    : text);
}

// partition, rpartition: the text before, the separator, the text after.
template <bool kLast>
Value Partition(const Str& text, const CallArgs& args) {
  const Str by = WantString(args.Get(0, "sep"), "partition");
  if (by.empty()) throw TemplateError("partition: empty separator");
  const size_t hit = kLast ? text.view().rfind(by.view()) : text.view().find(by.view());
  if (hit == std::string_view::npos)
    return kLast ? Value::Tuple({Str(), Str(), text}) : Value::Tuple({text, Str(), Str()});
  const size_t behind = hit + by.size();
  return Value::Tuple({text.Slice(0, hit), text.Slice(hit, behind), text.From(behind)});
}

Value JoinMethod(const Str& text, const CallArgs& args) {
  StrBuilder out;
  bool first = true;
  for (const Value& item : Iterate(args.Get(0, "iterable"))) {
    if (!std::exchange(first, false)) out.Append(text);
    out.Append(WantString(item, "join"));
    CheckSize(out, args.bytes_max, "join");
  }
  return Value(out.Take());
}

template <int kSides>
Value StripMethod(const Str& text, const CallArgs& args) {
  const Value chars = args.GetSome(0, "chars");
  if (!chars.is_undefined()) WantString(chars, "strip");
  return Value(Strip(text, chars, static_cast<Sides>(kSides)));
}

// ljust fills on the right, rjust on the left, center on both sides.
template <int kSides>
Value PadMethod(const Str& text, const CallArgs& args) {
  const Str fill = WantString(args.Get(1, "fillchar", Value(" ")), "fillchar");
  if (CodePoints(fill.view()).size() != 1)
    throw TemplateError("the text to fill with is not one character");
  return Value(Pad(text, WantInt(args.Get(0, "width"), "width"), fill, static_cast<Sides>(kSides),
                   args.bytes_max));
}

Value ZeroFill(const Str& text, const CallArgs& args) {
  const bool sign = text.view().starts_with('-') || text.view().starts_with('+');
  const int64_t width = WantInt(args.Get(0, "width"), "zfill");
  if (!sign) return Value(Pad(text, width, Str("0"), kLeft, args.bytes_max));
  const int64_t rest = width > 0 ? width - 1 : 0;
  return Value(Concat(text.Slice(0, 1), Pad(text.From(1), rest, Str("0"), kLeft, args.bytes_max)));
}

template <bool kLast>
Value SplitMethod(const Str& text, const CallArgs& args) {
  const int64_t most = WantInt(args.Get(1, "maxsplit", Value(int64_t{-1})), "split");
  const Value separator = args.Get(0, "sep");
  return Value(kLast ? SplitRight(text, separator, most) : Split(text, separator, most));
}

template <Case kCase>
Value CaseMethod(const Str& text, const CallArgs& /*args*/) {
  return Value(ChangeCase(text, kCase));
}
template <Case kCase>
Value CasedMethod(const Str& text, const CallArgs& /*args*/) {
  return Value(IsCased(text, kCase));
}
template <Kind kKind>
Value KindMethod(const Str& text, const CallArgs& /*args*/) {
  return Value(AllOf(text, kKind));
}

struct StringMethodRow {
  Signature signature;
  Value (*method)(const Str&, const CallArgs&);
};

constexpr StringMethodRow kStringMethods[] = {
    {{"strip", "chars? /"}, StripMethod<kBoth>},
    {{"lstrip", "chars? /"}, StripMethod<kLeft>},
    {{"rstrip", "chars? /"}, StripMethod<kRight>},
    {{"split", "sep? maxsplit?"}, SplitMethod<false>},
    {{"rsplit", "sep? maxsplit?"}, SplitMethod<true>},
    {{"splitlines", "keepends?"},
     [](const Str& s, const CallArgs& a) {
       return Value(SplitLines(s, a.Get(0, "keepends").Truthy()));
     }},
    {{"partition", "sep /"}, Partition<false>},
    {{"rpartition", "sep /"}, Partition<true>},
    {{"startswith", "prefix start? end? /"}, HasAffix<true>},
    {{"endswith", "prefix start? end? /"}, HasAffix<false>},
    {{"removeprefix", "prefix /"}, RemovePrefix},
    {{"removesuffix", "suffix /"}, RemoveSuffix},
    {{"replace", "old new count? /"},
     [](const Str& s, const CallArgs& a) {
       const Value count = a.Get(2, "count");
       if (!count.is_undefined()) WantInt(count, "replace");
       return Value(Replace(s, WantString(a.Get(0, "old"), "replace"),
                            WantString(a.Get(1, "new"), "replace"), count, a.bytes_max));
     }},
    {{"find", "sub start? end? /"}, Find<false, false>},
    {{"rfind", "sub start? end? /"}, Find<true, false>},
    {{"index", "sub start? end? /"}, Find<false, true>},
    {{"rindex", "sub start? end? /"}, Find<true, true>},
    {{"count", "sub start? end? /"}, Count},
    {{"join", "iterable /"}, JoinMethod},
    {{"center", "width fillchar? /"}, PadMethod<kBoth>},
    {{"ljust", "width fillchar? /"}, PadMethod<kRight>},
    {{"rjust", "width fillchar? /"}, PadMethod<kLeft>},
    {{"zfill", "width /"}, ZeroFill},
    {{"upper", ""}, CaseMethod<Case::kUpper>},
    {{"lower", ""}, CaseMethod<Case::kLower>},
    {{"title", ""}, CaseMethod<Case::kTitle>},
    {{"capitalize", ""}, CaseMethod<Case::kCapital>},
    {{"swapcase", ""}, CaseMethod<Case::kSwap>},
    {{"isupper", ""}, CasedMethod<Case::kUpper>},
    {{"islower", ""}, CasedMethod<Case::kLower>},
    {{"isalpha", ""}, KindMethod<Kind::kLetter>},
    {{"isalnum", ""}, KindMethod<Kind::kLetterOrNumber>},
    {{"isdigit", ""}, KindMethod<Kind::kDigit>},
    {{"isdecimal", ""}, KindMethod<Kind::kDecimal>},
    {{"isnumeric", ""}, KindMethod<Kind::kNumeric>},
    {{"isspace", ""}, KindMethod<Kind::kSpace>},
};

}  // namespace

Str Strip(const Str& text, const Value& chars, Sides sides) {
  const std::vector<std::string_view> points = CodePoints(text.view());
  std::vector<std::string_view> set;
  const bool given = chars.is_string();
  if (given) {
    set = CodePoints(chars.string()->view());
    std::sort(set.begin(), set.end());
  }
  const auto goes = [&](std::string_view point) {
    size_t size = 0;
    return given ? std::binary_search(set.begin(), set.end(), point) : IsSpaceAt(point, &size);
  };
  size_t first = 0, last = points.size();
  while ((sides & kLeft) != 0 && first < last && goes(points[first])) ++first;
  while ((sides & kRight) != 0 && last > first && goes(points[last - 1])) --last;
  if (first == last) return {};
  const char* begin = text.view().data();
  return text.Slice(static_cast<size_t>(points[first].data() - begin),
                    static_cast<size_t>(points[last - 1].data() + points[last - 1].size() - begin));
}

List Split(const Str& text, const Value& separator, int64_t most) {
  if (separator.is_undefined() || separator.is_none()) return SplitAtSpace(text, most);
  const Str by = WantString(separator, "split");
  if (by.empty()) throw TemplateError("split: empty separator");
  const std::string_view view = text.view();
  List parts;
  size_t start = 0;
  for (size_t hit = view.find(by.view()); hit != view.npos; hit = view.find(by.view(), start)) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) == most) break;
    parts.emplace_back(text.Slice(start, hit));
    start = hit + by.size();
  }
  parts.emplace_back(text.From(start));
  return parts;
}

List SplitLines(const Str& text, bool keep_ends) {
  const std::string_view view = text.view();
  const auto ends_line = [](uint32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
  };
  List lines;
  size_t begin = 0;
  for (size_t at = 0; at < view.size();) {
    const size_t size = CodePoints(view.substr(at, 4))[0].size();
    const size_t end = at;
    at += size;
    if (!ends_line(CodePointAt(view.substr(end)))) continue;
    if (view[end] == '\r' && at < view.size() && view[at] == '\n') ++at;
    lines.emplace_back(text.Slice(begin, keep_ends ? at : end));
    begin = at;
  }
  if (begin < view.size()) lines.emplace_back(text.From(begin));
  return lines;
}

List SplitRight(const Str& text, const Value& separator, int64_t most) {
  if (most < 0) return Split(text, separator, most);
  if (separator.is_undefined() || separator.is_none()) return SplitRightAtSpace(text, most);
  const Str by = WantString(separator, "rsplit");
  if (by.empty()) throw TemplateError("rsplit: empty separator");
  const std::string_view view = text.view();
  List parts;
  size_t end = view.size();
  while (static_cast<int64_t>(parts.size()) < most) {
    const size_t hit = end < by.size() ? view.npos : view.rfind(by.view(), end - by.size());
    if (hit == view.npos) break;
    parts.emplace_back(text.Slice(hit + by.size(), end));
    end = hit;
  }
  parts.emplace_back(text.Slice(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

namespace {

// If `from` is empty, inserts `to` between all characters, like Python.
Str Interleave(const Str& text, const Str& to, int64_t most, int64_t bytes_max) {
  StrBuilder out;
  int64_t done = 0;
  const auto put = [&] {
    if (most < 0 || done++ < most) out.Append(to);
    CheckSize(out, bytes_max, "replace");
  };
  put();
  for (const Str& point : text.CodePoints()) {
    out.Append(point);
    put();
  }
  return out.Take();
}

}  // namespace

Str Replace(const Str& text, const Str& from, const Str& to, const Value& count,
            int64_t bytes_max) {
  const int64_t most = count.is_undefined() ? -1 : WantInt(count, "replace");
  if (from.empty()) return Interleave(text, to, most, bytes_max);
  const std::string_view view = text.view();
  StrBuilder out;
  size_t start = 0;
  int64_t done = 0;
  for (size_t hit = view.find(from.view()); hit != view.npos && (most < 0 || done < most);
       hit = view.find(from.view(), start), ++done) {
    out.Append(text.Slice(start, hit));
    out.Append(to);
    start = hit + from.size();
    CheckSize(out, bytes_max, "replace");
  }
  out.Append(text.From(start));
  CheckSize(out, bytes_max, "replace");
  return out.Take();
}

Str Indent(const Str& text, const CallArgs& args) {
  const Value width = args.Get(0, "width", Value(int64_t{4}));
  const Str pad =
      width.is_string()
          ? *width.string()
          : Str(std::string(
                static_cast<size_t>(std::clamp<int64_t>(WantInt(width, "indent"), 0, 1000)), ' '));
  const bool blank = args.Get(2, "blank").Truthy();
  StrBuilder out;
  if (args.Get(1, "first").Truthy()) out.Append(pad);
  bool at_first = true;
  for (const Value& line : SplitLines(Concat(text, Str("\n")), /*keep_ends=*/false)) {
    const Str& part = *line.string();
    if (!std::exchange(at_first, false)) {
      out.Append('\n');
      if (blank || !part.empty()) out.Append(pad);
    }
    out.Append(part);
    CheckSize(out, args.bytes_max, "indent");
  }
  return out.Take();
}

Str Pad(const Str& text, int64_t width, const Str& fill, Sides sides, int64_t bytes_max) {
  const auto size = static_cast<int64_t>(CodePoints(text.view()).size());
  if (width <= size) return text;
  if (width > bytes_max / 4) throw TemplateError(fmt::format("the width {} is too large", width));
  const int64_t missing = width - size;
  // If the width is odd, str.center puts the extra character on the left.
  const int64_t left =
      sides == kBoth ? missing / 2 + (missing & width & 1) : (sides == kLeft ? missing : 0);
  StrBuilder out;
  for (int64_t i = 0; i < left; ++i) out.Append(fill);
  out.Append(text);
  for (int64_t i = left; i < missing; ++i) out.Append(fill);
  return out.Take();
}

Str ReverseText(const Str& text) {
  StrBuilder out;
  std::vector<Str> points = text.CodePoints();
  std::for_each(points.rbegin(), points.rend(), [&](const Str& point) { out.Append(point); });
  return out.Take();
}

const Signature* FindStringMethod(std::string_view name) {
  const StringMethodRow* row = FindRow(kStringMethods, name);
  return row != nullptr ? &row->signature : nullptr;
}

std::vector<std::string_view> StringMethodNames() {
  std::vector<std::string_view> names;
  for (const StringMethodRow& row : kStringMethods) names.push_back(row.signature.name);
  return names;
}

Value CallStringMethod(const Str& self, const std::string& name, const CallArgs& args) {
  const StringMethodRow* row = FindRow(kStringMethods, name);
  if (row == nullptr) throw TemplateError(fmt::format("a string has no method '{}'", name));
  CheckCall("method", row->signature, args);
  return row->method(self, args);
}

}  // namespace fathom::jinja
