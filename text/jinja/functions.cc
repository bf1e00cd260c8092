// The functions that every template can call.
#include <fmt/format.h>

#include <ctime>

#include "text/jinja/builtins.h"

namespace fathom::jinja {
namespace {

constexpr size_t kRangeMax = 100'000;

// The entries of `dict` and `namespace`: from a mapping or pairs, then from the named arguments.
Map Entries(const CallArgs& args) {
  MapBuilder entries;
  if (!args.args.empty()) {
    const Value& first = args.args[0];
    for (const Value& item : first.map() != nullptr ? MapItems(*first.map()) : Iterate(first)) {
      const List pair = Iterate(item);
      if (pair.size() != 2) throw TemplateError("dict: an item is no pair of key and value");
      entries.Set(pair[0], pair[1]);
    }
  }
  for (const auto& [name, value] : args.named) entries.Set(Value(name), value);
  return entries.Take();
}

Value Dict(const CallArgs& args, int64_t /*now*/) { return Value(Entries(args)); }

Value MakeNamespace(const CallArgs& args, int64_t /*now*/) {
  auto space = std::make_shared<Namespace>();
  for (auto& [name, value] : Entries(args))
    (*space)[WantString(name, "namespace").str()] = std::move(value);
  return Value(std::move(space));
}

Value Range(const CallArgs& args, int64_t /*now*/) {
  std::vector<int64_t> n;
  for (const Value& v : args.args) n.push_back(WantInt(v, "range"));
  const int64_t start = n.size() > 1 ? n[0] : 0, stop = n.size() > 1 ? n[1] : n[0],
                step = n.size() > 2 ? n[2] : 1;
  if (step == 0) throw TemplateError("range: the step is zero");
  List out;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (out.size() >= kRangeMax)
      throw TemplateError(fmt::format("range: more than {} items", kRangeMax));
    out.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value(std::move(out));
}

Value FormatNow(const CallArgs& args, int64_t now_unix_s) {
  const std::string format = WantString(args.Get(0, "format"), "strftime_now").str();
  const time_t now = now_unix_s;
  tm parts{};
  gmtime_r(&now, &parts);
  char text[256];
  return Value(std::string(text, strftime(text, sizeof text, format.c_str(), &parts)));
}

Value RaiseException(const CallArgs& args, int64_t /*now*/) {
  throw TemplateError("the template refuses this conversation: " +
                      args.Get(0, "message").Text().str());
}

struct FunctionRow {
  Signature signature;
  Value (*function)(const CallArgs& args, int64_t now_unix_s);
};

constexpr FunctionRow kFunctions[] = {
    {{"namespace", "(mapping)? **"}, MakeNamespace},  {{"dict", "(mapping)? **"}, Dict},
    {{"range", "start stop? step? /"}, Range},        {{"strftime_now", "format"}, FormatNow},
    {{"raise_exception", "message"}, RaiseException},
};

}  // namespace

const Signature* FindFunction(std::string_view name) {
  const FunctionRow* row = FindRow(kFunctions, name);
  return row != nullptr ? &row->signature : nullptr;
}

std::vector<std::string_view> FunctionNames() {
  std::vector<std::string_view> names;
  for (const FunctionRow& row : kFunctions) names.push_back(row.signature.name);
  return names;
}

Value CallFunction(std::string_view name, const CallArgs& args, int64_t now_unix_s) {
  const FunctionRow* row = FindRow(kFunctions, name);
  if (row == nullptr) throw TemplateError(fmt::format("there is no function '{}'", name));
  CheckCall("function", row->signature, args);
  return row->function(args, now_unix_s);
}

}  // namespace fathom::jinja
