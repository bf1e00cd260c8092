// Filters that iterate over lists, maps and texts.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "text/jinja/builtins.h"
#include "text/jinja/string_methods.h"

namespace fathom::jinja {
namespace {

constexpr int64_t kBatchesMax = 100'000;

// The argument `attribute` of a filter: "a.0.b", an index, or nothing.
class Path {
 public:
  explicit Path(const Value& attribute) {
    if (attribute.is_undefined() || attribute.is_none()) return;
    if (!attribute.is_string()) {
      parts_.push_back(attribute);
      return;
    }
    for (const Value& part : Split(*attribute.string(), Value("."), -1)) {
      const std::string_view text = part.string()->view();
      const bool digits =
          !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == text.npos;
      parts_.push_back(digits ? Value(int64_t{std::stoi(std::string(text))}) : part);
    }
  }

  // Follows the path. `fallback` replaces an undefined value on the way, unless `fallback` is
  // undefined.
  Value Of(const Value& object, const Value& fallback = {}) const {
    Value at = object;
    for (const Value& part : parts_) {
      at = Item(at, part);
      if (at.is_undefined() && !fallback.is_undefined()) at = fallback;
    }
    return at;
  }

 private:
  List parts_;
};

// The value that filters compare: strings in lower case, unless case counts.
Value Comparable(const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) return value;
  return Value(ChangeCase(*value.string(), Case::kLower));
}

// select, reject, selectattr, rejectattr.
template <bool kKeep, bool kByAttribute>
Value Select(const Value& input, const CallArgs& args) {
  const size_t first = kByAttribute ? 1 : 0;
  const Path path(kByAttribute ? args.Get(0, "attribute") : Value());
  const std::string test =
      args.args.size() > first ? WantString(args.args[first], "select").str() : std::string();
  const CallArgs rest = args.After(first + 1);
  List kept;
  for (const Value& item : Iterate(input)) {
    const Value subject = path.Of(item);
    if ((test.empty() ? subject.Truthy() : ApplyTest(test, subject, rest)) == kKeep)
      kept.push_back(item);
  }
  return Value(std::move(kept));
}

Value MapFilter(const Value& input, const CallArgs& args) {
  List out;
  if (args.args.empty()) {
    const Signature named = {"map", "attribute default?"};
    CheckCall("filter", named, args);
    const Path path(args.Get(0, "attribute"));
    const Value fallback = args.GetSome(1, "default");
    for (const Value& item : Iterate(input)) out.push_back(path.Of(item, fallback));
    return Value(std::move(out));
  }
  const std::string filter = WantString(args.args[0], "map").str();
  const CallArgs rest = args.After(1);
  for (const Value& item : Iterate(input)) out.push_back(ApplyFilter(filter, item, rest));
  return Value(std::move(out));
}

Value Join(const Value& input, const CallArgs& args) {
  const Str between = args.Get(0, "d", Value("")).Text();
  const Path path(args.Get(1, "attribute"));
  StrBuilder out;
  bool first = true;
  for (const Value& item : Iterate(input)) {
    if (!std::exchange(first, false)) out.Append(between);
    out.Append(path.Of(item).Text());
    if (static_cast<int64_t>(out.size()) > args.bytes_max)
      throw TemplateError("join: the result is too long");
  }
  return Value(out.Take());
}

Value Length(const Value& input, const CallArgs& /*args*/) {
  if (const Str* s = input.string())
    return Value(static_cast<int64_t>(CodePoints(s->view()).size()));
  if (const List* list = input.list()) return Value(static_cast<int64_t>(list->size()));
  if (const Map* map = input.map()) return Value(static_cast<int64_t>(map->size()));
  if (input.is_undefined()) return Value(int64_t{0});
  throw TemplateError(fmt::format("length: a {} has no length", input.TypeName()));
}

Value Reverse(const Value& input, const CallArgs& /*args*/) {
  if (input.is_string()) return Value(ReverseText(*input.string()));
  List items = Iterate(input);
  std::reverse(items.begin(), items.end());
  return Value(std::move(items));
}

// Sorts by keys that were computed before. Items with equal keys keep their order, also in reverse.
List SortedBy(List keys, const List& items, bool reverse) {
  std::vector<size_t> places(items.size());
  for (size_t i = 0; i < places.size(); ++i) places[i] = i;
  std::stable_sort(places.begin(), places.end(), [&](size_t left, size_t right) {
    return reverse ? Order(keys[right], keys[left]) < 0 : Order(keys[left], keys[right]) < 0;
  });
  List sorted;
  for (const size_t place : places) sorted.push_back(items[place]);
  return sorted;
}

Value Sort(const Value& input, const CallArgs& args) {
  const bool case_sensitive = args.Get(1, "case_sensitive").Truthy();
  const Value attribute = args.GetSome(2, "attribute");
  std::vector<Path> paths;
  if (attribute.is_string()) {
    for (const Value& part : Split(*attribute.string(), Value(","), -1)) paths.emplace_back(part);
  } else {
    paths.emplace_back(attribute);
  }
  const List items = Iterate(input);
  List keys;
  for (const Value& item : items) {
    List key;
    for (const Path& path : paths) key.push_back(Comparable(path.Of(item), case_sensitive));
    keys.emplace_back(std::move(key));
  }
  return Value(SortedBy(std::move(keys), items, args.Get(0, "reverse").Truthy()));
}

Value DictSort(const Value& input, const CallArgs& args) {
  if (input.map() == nullptr)
    throw TemplateError(fmt::format("dictsort needs a mapping, got a {}", input.TypeName()));
  const bool case_sensitive = args.Get(0, "case_sensitive").Truthy();
  const Str by = WantString(args.Get(1, "by", Value("key")), "dictsort");
  if (by.view() != "key" && by.view() != "value")
    throw TemplateError("dictsort sorts by 'key' or by 'value'");
  List keys;
  for (const auto& [key, value] : *input.map())
    keys.push_back(Comparable(by.view() == "key" ? key : value, case_sensitive));
  return Value(SortedBy(std::move(keys), MapItems(*input.map()), args.Get(2, "reverse").Truthy()));
}

Value Unique(const Value& input, const CallArgs& args) {
  const bool case_sensitive = args.Get(0, "case_sensitive").Truthy();
  const Path path(args.Get(1, "attribute"));
  MapBuilder seen;
  List out;
  for (const Value& item : Iterate(input)) {
    Value key = Comparable(path.Of(item), case_sensitive);
    if (seen.Has(key)) continue;
    seen.Set(std::move(key), Value(true));
    out.push_back(item);
  }
  return Value(std::move(out));
}

template <int kSign>
Value Extreme(const Value& input, const CallArgs& args) {
  const bool case_sensitive = args.Get(0, "case_sensitive").Truthy();
  const Path path(args.Get(1, "attribute"));
  Value best, best_key;
  bool first = true;
  for (const Value& item : Iterate(input)) {
    Value key = Comparable(path.Of(item), case_sensitive);
    if (!std::exchange(first, false) && kSign * Order(key, best_key) <= 0) continue;
    best = item;
    best_key = std::move(key);
  }
  return best;
}

Value Sum(const Value& input, const CallArgs& args) {
  const Path path(args.Get(0, "attribute"));
  const Value start = args.Get(1, "start", Value(int64_t{0}));
  if (start.is_string()) throw TemplateError("sum adds no texts; join them");
  const List items = Iterate(input);
  if (const List* list = start.list(); list != nullptr && !start.is_tuple()) {
    // In one step: adding the lists one by one would copy the first ones each time.
    List all = *list;
    for (const Value& item : items) {
      const Value part = path.Of(item);
      if (part.list() == nullptr || part.is_tuple())
        throw TemplateError(fmt::format("sum: a {} is not added to a list", part.TypeName()));
      all.insert(all.end(), part.list()->begin(), part.list()->end());
    }
    return Value(std::move(all));
  }
  Value total = start;
  for (const Value& item : items) total = BinaryOp("+", total, path.Of(item), args.bytes_max);
  return total;
}

// Lists of `linecount` items each; the last one is filled up.
Value Batch(const Value& input, const CallArgs& args) {
  const int64_t count = WantInt(args.Get(0, "linecount"), "batch");
  const Value fill = args.GetSome(1, "fill_with");
  if (count < 1 || count > kBatchesMax)
    throw TemplateError(fmt::format("batch: {} is not 1 to {} items", count, kBatchesMax));
  List out, row;
  for (const Value& item : Iterate(input)) {
    if (static_cast<int64_t>(row.size()) == count) out.emplace_back(std::exchange(row, {}));
    row.push_back(item);
  }
  if (!row.empty()) {
    while (!fill.is_undefined() && static_cast<int64_t>(row.size()) < count) row.push_back(fill);
    out.emplace_back(std::move(row));
  }
  return Value(std::move(out));
}

Value FirstItem(const Value& input, const CallArgs& /*args*/) {
  const List items = Iterate(input);
  return items.empty() ? Value() : items.front();
}

Value LastItem(const Value& input, const CallArgs& /*args*/) {
  const List items = Iterate(input);
  return items.empty() ? Value() : items.back();
}

constexpr FilterRow kSequenceFilters[] = {
    {{"length", ""}, Length},
    {{"count", ""}, Length},
    {{"join", "d? attribute?"}, Join},
    {{"list", ""}, [](const Value& v, const CallArgs&) { return Value(Iterate(v)); }},
    {{"first", ""}, FirstItem},
    {{"last", ""}, LastItem},
    {{"reverse", ""}, Reverse},
    {{"map", "* **"}, MapFilter},
    {{"select", "* **"}, Select<true, false>},
    {{"reject", "* **"}, Select<false, false>},
    {{"selectattr", "attribute * ** /"}, Select<true, true>},
    {{"rejectattr", "attribute * ** /"}, Select<false, true>},
    {{"sort", "reverse? case_sensitive? attribute?"}, Sort},
    {{"dictsort", "case_sensitive? by? reverse?"}, DictSort},
    {{"unique", "case_sensitive? attribute?"}, Unique},
    {{"min", "case_sensitive? attribute?"}, Extreme<-1>},
    {{"max", "case_sensitive? attribute?"}, Extreme<1>},
    {{"sum", "attribute? start?"}, Sum},
    {{"batch", "linecount fill_with?"}, Batch},
};

}  // namespace

std::span<const FilterRow> SequenceFilters() { return kSequenceFilters; }

}  // namespace fathom::jinja
