// Filters that return numbers.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "text/jinja/builtins.h"
#include "text/jinja/string_methods.h"

namespace fathom::jinja {
namespace {

constexpr int64_t kRoundPrecisionMax = 300;

int DigitOf(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'z' ? lower - 'a' + 10 : 99;
}

// Removes each "_" that is between two digits; nullopt if one is elsewhere.
std::optional<std::string> WithoutUnderscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const bool between =
        i > 0 && i + 1 < text.size() && DigitOf(text[i - 1]) < 36 && DigitOf(text[i + 1]) < 36;
    if (!between) return std::nullopt;
  }
  return out;
}

// Python's int(text, base); nullopt where Python raises ValueError. Only ASCII digits count.
std::optional<Value> ParseInt(std::string_view text, int64_t base) {
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const char mark = text.size() > 1 && text[0] == '0' ? static_cast<char>(text[1] | 0x20) : '\0';
  const int64_t marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
  if (marked != 0 && (base == 0 || base == marked)) {
    base = marked;
    text.remove_prefix(2);
    if (text.starts_with('_')) text.remove_prefix(1);
  } else if (base == 0) {
    if (text.starts_with('0') && text.find_first_not_of("0_") != text.npos) return std::nullopt;
    base = 10;
  }
  const std::optional<std::string> digits = WithoutUnderscores(text);
  if (!digits || digits->empty()) return std::nullopt;
  if (!std::all_of(digits->begin(), digits->end(), [&](char c) { return DigitOf(c) < base; }))
    return std::nullopt;
  const std::string sign = negative ? "-" : "";
  const std::string all = sign + *digits;
  int64_t value = 0;
  const auto [end, error] =
      std::from_chars(all.data(), all.data() + all.size(), value, static_cast<int>(base));
  if (error == std::errc()) return Value(value);
  if (base != 10) throw TemplateError(fmt::format("int: {} is too large", all));
  return Value(BigInt{sign + digits->substr(digits->find_first_not_of('0'))});
}

// Python's float(text); nullopt where Python raises ValueError.
std::optional<double> ParseFloat(std::string_view text) {
  const std::optional<std::string> plain = WithoutUnderscores(text);
  if (!plain) return std::nullopt;
  std::string_view body = *plain;
  if (body.starts_with('-') || body.starts_with('+')) body.remove_prefix(1);
  std::string lower(body);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (lower != "inf" && lower != "infinity" && lower != "nan") {
    if (lower.find_first_not_of("0123456789.e+-") != lower.npos) return std::nullopt;
    if (lower.empty() || lower[0] == '+' || lower[0] == '-') return std::nullopt;
  }
  char* end = nullptr;
  const double value = std::strtod(plain->c_str(), &end);
  if (end == plain->c_str() || end != plain->c_str() + plain->size()) return std::nullopt;
  return value;
}

// Python's int(value) of a float; nullopt for NaN.
std::optional<Value> Truncated(double value) {
  if (std::isnan(value)) return std::nullopt;
  const double whole = std::trunc(value);
  if (whole >= -0x1p63 && whole < 0x1p63) return Value(static_cast<int64_t>(whole));
  return Value(BigInt{fmt::format("{:.0f}", whole)});
}

void RefuseUndefined(const Value& input, const char* what) {
  if (input.is_undefined())
    throw TemplateError(fmt::format("{}: the value is {}", what, input.TypeName()));
}

Value ToInt(const Value& input, const CallArgs& args) {
  RefuseUndefined(input, "int");
  const Value fallback = args.Get(0, "default", Value(int64_t{0}));
  const int64_t base = WantInt(args.Get(1, "base", Value(int64_t{10})), "int");
  if (input.is_float()) {
    if (std::isinf(input.AsDouble())) throw TemplateError("int: infinity is no integer");
    return Truncated(input.AsDouble()).value_or(fallback);
  }
  if (input.is_bool()) return Value(input.AsInt());
  if (input.is_number()) return input;
  if (!input.is_string()) return fallback;
  const Str stripped = Strip(*input.string(), Value(), kBoth);
  const bool known_base = base == 0 || (base >= 2 && base <= 36);
  if (known_base) {
    if (auto value = ParseInt(stripped.view(), base)) return *value;
  }
  const std::optional<double> real = ParseFloat(stripped.view());
  if (!real || std::isinf(*real)) return fallback;
  return Truncated(*real).value_or(fallback);
}

Value ToFloat(const Value& input, const CallArgs& args) {
  RefuseUndefined(input, "float");
  const Value fallback = args.Get(0, "default", Value(0.0));
  if (input.is_number()) {
    if (input.big_int() != nullptr && std::isinf(input.AsDouble()))
      throw TemplateError("float: the integer is too large");
    return Value(input.AsDouble());
  }
  if (!input.is_string()) return fallback;
  const std::optional<double> real = ParseFloat(Strip(*input.string(), Value(), kBoth).view());
  return real ? Value(*real) : fallback;
}

Value Abs(const Value& input, const CallArgs& /*args*/) {
  if (const BigInt* big = input.big_int())
    return Value(BigInt{big->digits.substr(big->digits.starts_with('-') ? 1 : 0)});
  if (!input.is_number())
    throw TemplateError(fmt::format("abs needs a number, got a {}", input.TypeName()));
  if (input.is_float()) return Value(std::fabs(input.AsDouble()));
  if (input.AsInt() == INT64_MIN) return Value(BigInt{"9223372036854775808"});
  return Value(std::abs(input.AsInt()));
}

// round(value, precision) of an integer: half to even.
Value RoundInt(int64_t value, int64_t precision) {
  if (precision >= 0) return Value(value);
  if (precision < -18) return Value(int64_t{0});
  int64_t unit = 1;
  for (int64_t i = 0; i < -precision; ++i) unit *= 10;
  int64_t rest = value % unit;
  int64_t down = value - rest;
  if (rest < 0) {
    if (__builtin_sub_overflow(down, unit, &down)) throw TemplateError("round: too large");
    rest += unit;
  }
  const int64_t half = unit / 2;
  const bool up = rest > half || (rest == half && (down / unit) % 2 != 0);
  if (up && __builtin_add_overflow(down, unit, &down)) throw TemplateError("round: too large");
  return Value(down);
}

Value RoundFloat(double value, int64_t precision) {
  if (!std::isfinite(value) || precision > kRoundPrecisionMax) return Value(value);
  if (precision < -kRoundPrecisionMax) return Value(std::copysign(0.0, value));
  if (precision >= 0)  // Exact half to even on the stored value, like Python.
    return Value(std::strtod(fmt::format("{:.{}f}", value, precision).c_str(), nullptr));
  const double unit = std::pow(10.0, static_cast<double>(-precision));
  return Value(std::nearbyint(value / unit) * unit);
}

Value Round(const Value& input, const CallArgs& args) {
  if (!input.is_number() || input.big_int() != nullptr)
    throw TemplateError(fmt::format("round needs a number of 64 bits, got a {}", input.TypeName()));
  const int64_t precision = WantInt(args.Get(0, "precision", Value(int64_t{0})), "round");
  const Str method = WantString(args.Get(1, "method", Value("common")), "round");
  if (method.view() == "common") {
    return input.is_float() ? RoundFloat(input.AsDouble(), precision)
                            : RoundInt(input.AsInt(), precision);
  }
  const bool ceil = method.view() == "ceil";
  if (!ceil && method.view() != "floor")
    throw TemplateError("round: the method is 'common', 'ceil' or 'floor'");
  if (precision > kRoundPrecisionMax || precision < -kRoundPrecisionMax)
    throw TemplateError(fmt::format("round: precision beyond {}", kRoundPrecisionMax));
  const double unit = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.AsDouble() * unit;
  if (!std::isfinite(scaled)) throw TemplateError("round: the number is too large");
  return Value((ceil ? std::ceil(scaled) : std::floor(scaled)) / unit);
}

constexpr FilterRow kNumberFilters[] = {
    {{"int", "default? base?"}, ToInt},
    {{"float", "default?"}, ToFloat},
    {{"abs", ""}, Abs},
    {{"round", "precision? method?"}, Round},
};

}  // namespace

std::span<const FilterRow> NumberFilters() { return kNumberFilters; }

}  // namespace fathom::jinja
