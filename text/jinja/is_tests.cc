// Tests ("x is odd") of the template language.
#include <fmt/format.h>

#include "text/jinja/builtins.h"
#include "text/jinja/string_methods.h"

namespace fathom::jinja {
namespace {

template <int kRest>
bool Parity(const Value& v, const CallArgs& a) {
  return BinaryOp("%", v, Value(int64_t{2}), a.bytes_max) == Value(int64_t{kRest});
}

bool DivisibleBy(const Value& v, const CallArgs& a) {
  return BinaryOp("%", v, a.Get(0, "num"), a.bytes_max) == Value(int64_t{0});
}

bool IsSequence(const Value& v, const CallArgs& /*a*/) {
  return v.is_string() || v.list() != nullptr || v.map() != nullptr || v.is_undefined();
}

bool Equal(const Value& v, const CallArgs& a) { return v == a.Get(0, "other"); }
bool NotEqual(const Value& v, const CallArgs& a) { return !Equal(v, a); }
bool Less(const Value& v, const CallArgs& a) { return CompareOp("<", v, a.Get(0, "other")); }
bool LessEqual(const Value& v, const CallArgs& a) { return CompareOp("<=", v, a.Get(0, "other")); }
bool Greater(const Value& v, const CallArgs& a) { return CompareOp(">", v, a.Get(0, "other")); }
bool GreaterEqual(const Value& v, const CallArgs& a) {
  return CompareOp(">=", v, a.Get(0, "other"));
}

// Python's `is`: true for values of one type that are equal and that Python stores once (True,
// None).
bool SameAs(const Value& v, const CallArgs& a) {
  const Value other = a.Get(0, "other");
  return v.TypeName() == other.TypeName() && v == other;
}

using Test = bool (*)(const Value&, const CallArgs&);
struct TestRow {
  Signature signature;
  Test test;
};

constexpr TestRow kTests[] = {
    {{"defined", ""}, [](const Value& v, const CallArgs&) { return !v.is_undefined(); }},
    {{"undefined", ""}, [](const Value& v, const CallArgs&) { return v.is_undefined(); }},
    {{"none", ""}, [](const Value& v, const CallArgs&) { return v.is_none(); }},
    {{"string", ""}, [](const Value& v, const CallArgs&) { return v.is_string(); }},
    {{"number", ""}, [](const Value& v, const CallArgs&) { return v.is_number(); }},
    {{"integer", ""},
     [](const Value& v, const CallArgs&) { return v.is_int() || v.big_int() != nullptr; }},
    {{"float", ""}, [](const Value& v, const CallArgs&) { return v.is_float(); }},
    {{"boolean", ""}, [](const Value& v, const CallArgs&) { return v.is_bool(); }},
    {{"true", ""}, [](const Value& v, const CallArgs&) { return v.is_bool() && v.AsInt() != 0; }},
    {{"false", ""}, [](const Value& v, const CallArgs&) { return v.is_bool() && v.AsInt() == 0; }},
    {{"mapping", ""}, [](const Value& v, const CallArgs&) { return v.map() != nullptr; }},
    {{"sequence", ""}, IsSequence},
    {{"iterable", ""}, IsSequence},
    {{"callable", ""}, [](const Value& v, const CallArgs&) { return v.callable() != nullptr; }},
    {{"odd", ""}, Parity<1>},
    {{"even", ""}, Parity<0>},
    {{"lower", ""},
     [](const Value& v, const CallArgs&) { return IsCased(v.Text(), Case::kLower); }},
    {{"upper", ""},
     [](const Value& v, const CallArgs&) { return IsCased(v.Text(), Case::kUpper); }},
    {{"escaped", ""}, [](const Value&, const CallArgs&) { return false; }},
    {{"filter", ""},
     [](const Value& v, const CallArgs&) {
       return FindFilter(WantString(v, "filter").view()) != nullptr;
     }},
    {{"test", ""},
     [](const Value& v, const CallArgs&) {
       return FindTest(WantString(v, "test").view()) != nullptr;
     }},
    {{"divisibleby", "num"}, DivisibleBy},
    {{"sameas", "other"}, SameAs},
    {{"in", "seq"}, [](const Value& v, const CallArgs& a) { return Contains(a.Get(0, "seq"), v); }},
    {{"equalto", "other /"}, Equal},
    {{"eq", "other /"}, Equal},
    {{"==", "other /"}, Equal},
    {{"ne", "other /"}, NotEqual},
    {{"!=", "other /"}, NotEqual},
    {{"lt", "other /"}, Less},
    {{"lessthan", "other /"}, Less},
    {{"<", "other /"}, Less},
    {{"le", "other /"}, LessEqual},
    {{"<=", "other /"}, LessEqual},
    {{"gt", "other /"}, Greater},
    {{"greaterthan", "other /"}, Greater},
    {{">", "other /"}, Greater},
    {{"ge", "other /"}, GreaterEqual},
    {{">=", "other /"}, GreaterEqual},
};

}  // namespace

const Signature* FindTest(std::string_view name) {
  const TestRow* row = FindRow(kTests, name);
  return row != nullptr ? &row->signature : nullptr;
}

std::vector<std::string_view> TestNames() {
  std::vector<std::string_view> names;
  for (const TestRow& row : kTests) names.push_back(row.signature.name);
  return names;
}

bool ApplyTest(std::string_view name, const Value& input, const CallArgs& args) {
  const TestRow* row = FindRow(kTests, name);
  if (row == nullptr)
    throw TemplateError(fmt::format("the test '{}' is not supported in chat templates", name));
  CheckCall("test", row->signature, args);
  return row->test(input, args);
}

}  // namespace fathom::jinja
