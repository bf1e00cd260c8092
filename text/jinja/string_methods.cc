#include "text/jinja/string_methods.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

namespace fathom::router::jinja {
namespace {

void CheckSize(const StrBuilder& out, const CallArgs& args, std::string_view what) {
  if (static_cast<int64_t>(out.size()) > args.bytes_max) {
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
      parts.emplace_back(Strip(text.From(at), Value(), kRight));
      break;
    }
    size_t end = at, size = 0;
    while (end < view.size() && !IsSpaceAt(view.substr(end), &size)) end += size;
    parts.emplace_back(text.Slice(at, end));
    at = end;
  }
  return parts;
}

// startswith and endswith: one text or several.
bool Affix(std::string_view text, const Value& affix, bool front) {
  if (const List* several = affix.list()) {
    return std::any_of(several->begin(), several->end(),
                       [&](const Value& v) { return Affix(text, v, front); });
  }
  const Str one = WantString(affix, front ? "startswith" : "endswith");
  return front ? text.starts_with(one.view()) : text.ends_with(one.view());
}

Value Find(const Str& text, const CallArgs& args) {
  const std::string_view view = text.view();
  const size_t hit = view.find(WantString(args.Get(0, "sub"), "find").view());
  return hit == view.npos ? Value(int64_t{-1})
                          : Value(static_cast<int64_t>(CodePoints(view.substr(0, hit)).size()));
}

int64_t MaxSplit(const CallArgs& args) {
  return WantInt(args.Get(1, "maxsplit", Value(int64_t{-1})), "split");
}

using Method = Value (*)(const Str&, const CallArgs&);
struct MethodRow {
  std::string_view name;
  Method method;
};

constexpr MethodRow kMethods[] = {
    {"strip",
     [](const Str& s, const CallArgs& a) { return Value(Strip(s, a.Get(0, "chars"), kBoth)); }},
    {"lstrip",
     [](const Str& s, const CallArgs& a) { return Value(Strip(s, a.Get(0, "chars"), kLeft)); }},
    {"rstrip",
     [](const Str& s, const CallArgs& a) { return Value(Strip(s, a.Get(0, "chars"), kRight)); }},
    {"split",
     [](const Str& s, const CallArgs& a) { return Value(Split(s, a.Get(0, "sep"), MaxSplit(a))); }},
    {"rsplit",
     [](const Str& s, const CallArgs& a) {
       return Value(SplitRight(s, a.Get(0, "sep"), MaxSplit(a)));
     }},
    {"startswith",
     [](const Str& s, const CallArgs& a) {
       return Value(Affix(s.view(), a.Get(0, "prefix"), true));
     }},
    {"endswith",
     [](const Str& s, const CallArgs& a) {
       return Value(Affix(s.view(), a.Get(0, "suffix"), false));
     }},
    {"replace", [](const Str& s, const CallArgs& a) { return Value(Replace(s, a)); }},
    {"upper", [](const Str& s, const CallArgs&) { return Value(ChangeCase(s, Case::kUpper)); }},
    {"lower", [](const Str& s, const CallArgs&) { return Value(ChangeCase(s, Case::kLower)); }},
    {"title", [](const Str& s, const CallArgs&) { return Value(ChangeCase(s, Case::kTitle)); }},
    {"capitalize",
     [](const Str& s, const CallArgs&) { return Value(ChangeCase(s, Case::kCapital)); }},
    {"find", Find},
};

const MethodRow* FindMethod(std::string_view name) {
  const auto* found = std::find_if(std::begin(kMethods), std::end(kMethods),
                                   [&](const MethodRow& row) { return row.name == name; });
  return found != std::end(kMethods) ? found : nullptr;
}

}  // namespace

Str WantString(const Value& value, std::string_view what) {
  if (!value.is_string())
    throw TemplateError(fmt::format("{} needs a string, got a {}", what, value.TypeName()));
  return *value.string();
}

int64_t WantInt(const Value& value, std::string_view what) {
  if (!value.is_int() && !value.is_bool()) {
    throw TemplateError(fmt::format("{} needs an integer, got a {}", what, value.TypeName()));
  }
  return value.AsInt();
}

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

List SplitRight(const Str& text, const Value& separator, int64_t most) {
  if (most < 0 || !separator.is_string()) return Split(text, separator, most);
  const Str by = *separator.string();
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

Str ChangeCase(const Str& text, Case to) {
  StrBuilder out;
  bool at_start = true;
  text.ForEachRun([&](std::string_view run, bool literal) {
    std::string changed;
    for (const std::string_view point : CodePoints(run)) {
      utf8proc_int32_t code = 0;
      if (utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(point.data()),
                           static_cast<utf8proc_ssize_t>(point.size()), &code) <= 0) {
        changed.append(point);
        continue;
      }
      const bool upper =
          to == Case::kUpper || ((to == Case::kTitle || to == Case::kCapital) && at_start);
      const bool letter = utf8proc_toupper(code) != code || utf8proc_tolower(code) != code;
      at_start = to == Case::kTitle ? !letter : false;
      utf8proc_uint8_t bytes[4];
      const auto size =
          utf8proc_encode_char(upper ? utf8proc_toupper(code) : utf8proc_tolower(code), bytes);
      changed.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
    }
    out.AppendAs(changed, literal);
  });
  return out.Take();
}

Str Replace(const Str& text, const CallArgs& args) {
  const Str from = WantString(args.Get(0, "old"), "replace");
  const Str to = WantString(args.Get(1, "new"), "replace");
  const Value count = args.Get(2, "count", Value(None{}));
  const int64_t most = count.is_none() ? -1 : WantInt(count, "replace");
  if (from.empty()) throw TemplateError("replace: the text to replace is empty");
  const std::string_view view = text.view();
  StrBuilder out;
  size_t start = 0;
  int64_t done = 0;
  for (size_t hit = view.find(from.view()); hit != view.npos && (most < 0 || done < most);
       hit = view.find(from.view(), start), ++done) {
    out.Append(text.Slice(start, hit));
    out.Append(to);
    start = hit + from.size();
    CheckSize(out, args, "replace");
  }
  out.Append(text.From(start));
  CheckSize(out, args, "replace");
  return out.Take();
}

Str Indent(const Str& text, const CallArgs& args) {
  const Value width = args.Get(0, "width", Value(int64_t{4}));
  const Str pad =
      width.is_string()
          ? *width.string()
          : Str(std::string(
                static_cast<size_t>(std::clamp<int64_t>(WantInt(width, "indent"), 0, 1000)), ' '));
  const bool first = args.Get(1, "first", Value(false)).Truthy();
  const bool blank = args.Get(2, "blank", Value(false)).Truthy();
  StrBuilder out;
  bool at_first = true;
  for (const Value& line : Split(text, Value("\n"), -1)) {
    const Str& part = *line.string();
    if (!at_first) out.Append('\n');
    if ((at_first ? first : true) && (blank || !part.empty() || (at_first && first))) {
      out.Append(pad);
    }
    out.Append(part);
    at_first = false;
    CheckSize(out, args, "indent");
  }
  return out.Take();
}

Str ReverseText(const Str& text) {
  StrBuilder out;
  std::vector<Str> points = text.CodePoints();
  std::for_each(points.rbegin(), points.rend(), [&](const Str& point) { out.Append(point); });
  return out.Take();
}

std::vector<std::string_view> StringMethodNames() {
  std::vector<std::string_view> names;
  for (const MethodRow& row : kMethods) names.push_back(row.name);
  return names;
}

bool HasStringMethod(std::string_view name) { return FindMethod(name) != nullptr; }

Value CallStringMethod(const Str& self, const std::string& name, const CallArgs& args) {
  const MethodRow* row = FindMethod(name);
  if (row == nullptr) throw TemplateError(fmt::format("a string has no method '{}'", name));
  return row->method(self, args);
}

}  // namespace fathom::router::jinja
