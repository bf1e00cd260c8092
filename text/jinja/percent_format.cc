// Python's formatting with %: "%s has %5.2f" % (a, b).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "text/jinja/builtins.h"
#include "text/jinja/string_methods.h"

namespace fathom::jinja {
namespace {

constexpr int64_t kWidthMax = 100'000;
constexpr int64_t kPrecisionMax = 300;

struct Spec {
  bool left = false, zero = false, plus = false, space = false, alternate = false;
  int64_t width = 0;
  std::optional<int64_t> precision;
  char type = 's';
};

class Formatter {
 public:
  Formatter(const Str& format, const Value& args, int64_t bytes_max)
      : format_(format), view_(format.view()), args_(args), bytes_max_(bytes_max) {}

  Str Run() {
    for (size_t percent = view_.find('%'); percent != view_.npos; percent = view_.find('%', at_)) {
      out_.Append(format_.Slice(at_, percent));
      at_ = percent + 1;
      One();
      if (static_cast<int64_t>(out_.size()) > bytes_max_)
        throw TemplateError("format: the result is too long");
    }
    out_.Append(format_.From(at_));
    const bool may_be_left = args_.map() != nullptr || (args_.list() && !args_.is_tuple());
    const size_t given = args_.is_tuple() ? args_.list()->size() : 1;
    if (!may_be_left && used_ < given)
      throw TemplateError("format: the text has fewer places than there are values");
    return out_.Take();
  }

 private:
  char Peek() const {
    if (at_ >= view_.size()) throw TemplateError("format: the text ends within a place");
    return view_[at_];
  }

  Value NextValue() {
    if (args_.is_tuple()) {
      if (used_ < args_.list()->size()) return (*args_.list())[used_++];
    } else if (used_++ == 0) {
      return args_;
    }
    throw TemplateError("format: the text has more places than there are values");
  }

  int64_t Number(int64_t most, const char* what) {
    int64_t number = 0;
    if (Peek() == '*') {
      ++at_;
      number = WantInt(NextValue(), "format");
    } else {
      while (Peek() >= '0' && Peek() <= '9' && number <= most)
        number = number * 10 + (view_[at_++] - '0');
    }
    if (number > most || number < -most)
      throw TemplateError(fmt::format("format: the {} is larger than {}", what, most));
    return number;
  }

  // Formats one specifier, after its '%'.
  void One() {
    Spec spec;
    std::optional<Value> named;
    if (Peek() == '(') {
      const size_t close = view_.find(')', at_);
      if (close == view_.npos || args_.map() == nullptr)
        throw TemplateError("format: a place with a name needs a mapping");
      const Value key(format_.Slice(at_ + 1, close));
      const Value* found = args_.FindKey(key);
      if (found == nullptr)
        throw TemplateError(fmt::format("format: there is no value '{}'", key.Text().view()));
      named = *found;
      at_ = close + 1;
    }
    for (; std::string_view("-0+ #").find(Peek()) != std::string_view::npos; ++at_) {
      spec.left |= view_[at_] == '-';
      spec.zero |= view_[at_] == '0';
      spec.plus |= view_[at_] == '+';
      spec.space |= view_[at_] == ' ';
      spec.alternate |= view_[at_] == '#';
    }
    spec.width = Number(kWidthMax, "width");
    spec.left |= spec.width < 0;
    spec.width = std::abs(spec.width);
    if (Peek() == '.') {
      ++at_;
      spec.precision = std::max<int64_t>(0, Number(kPrecisionMax, "precision"));
    }
    while (std::string_view("hlL").find(Peek()) != std::string_view::npos) ++at_;
    spec.type = Peek();
    ++at_;
    if (spec.type == '%') return out_.Append('%');
    Convert(spec, named ? *named : NextValue());
  }

  void Convert(const Spec& spec, const Value& value) {
    switch (spec.type) {
      case 's':
        return Text(spec, value.Text());
      case 'r':
        return Text(spec, value.Repr());
      case 'c':
        return Text(spec, Character(value));
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        return Integer(spec, value);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        return Real(spec, value);
      default:
        throw TemplateError(fmt::format("format: '%{}' is not known", spec.type));
    }
  }

  static Str Character(const Value& value) {
    if (value.is_string() && CodePoints(value.string()->view()).size() == 1) return *value.string();
    const int64_t code = WantInt(value, "format: %c");
    if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      throw TemplateError(fmt::format("format: {} is no character", code));
    std::string text;
    AppendUtf8(static_cast<uint32_t>(code), &text);
    return Str(std::move(text));
  }

  void Text(const Spec& spec, Str text) {
    if (spec.precision) {
      const std::vector<std::string_view> points = CodePoints(text.view());
      const auto keep = static_cast<size_t>(*spec.precision);
      if (keep < points.size())
        text = text.Slice(0, static_cast<size_t>(points[keep].data() - text.view().data()));
    }
    out_.Append(Pad(text, spec.width, Str(" "), spec.left ? kRight : kLeft, bytes_max_));
  }

  // Appends a sign, a prefix and digits, with zeros between them or spaces around them up to the
  // width.
  void Digits(const Spec& spec, bool negative, const std::string& prefix, std::string digits,
              bool may_fill) {
    const std::string sign = negative ? "-" : spec.plus ? "+" : spec.space ? " " : "";
    const auto missing = spec.width - static_cast<int64_t>(sign.size() + prefix.size()) -
                         static_cast<int64_t>(digits.size());
    if (spec.zero && !spec.left && may_fill && missing > 0)
      digits.insert(0, static_cast<size_t>(missing), '0');
    const Str text(sign + prefix + digits);
    out_.Append(Pad(text, spec.width, Str(" "), spec.left ? kRight : kLeft, bytes_max_));
  }

  void Integer(const Spec& spec, const Value& value) {
    if (!value.is_number())
      throw TemplateError(
          fmt::format("format: %{} needs a number, got a {}", spec.type, value.TypeName()));
    const bool decimal = std::string_view("diu").find(spec.type) != std::string_view::npos;
    std::string digits;
    if (value.is_float()) {
      if (!decimal || !std::isfinite(value.AsDouble()))
        throw TemplateError(fmt::format("format: %{} needs an integer", spec.type));
      digits = fmt::format("{:.0f}", std::trunc(value.AsDouble()));
    } else if (value.big_int() != nullptr) {
      if (!decimal) throw TemplateError("format: the integer is too large");
      digits = value.big_int()->digits;
    } else {
      digits = std::to_string(value.AsInt());
    }
    const bool negative = digits.starts_with('-');
    if (negative) digits.erase(0, 1);
    // The result of -0.5.
    if (negative && digits == "0") return Digits(spec, false, "", digits, true);
    std::string prefix;
    if (!decimal) {
      const auto size = static_cast<uint64_t>(std::strtoull(digits.c_str(), nullptr, 10));
      digits = spec.type == 'x'   ? fmt::format("{:x}", size)
               : spec.type == 'X' ? fmt::format("{:X}", size)
                                  : fmt::format("{:o}", size);
      if (spec.alternate) prefix = {'0', spec.type};
    }
    const auto size = static_cast<int64_t>(digits.size());
    if (spec.precision && *spec.precision > size)
      digits.insert(0, static_cast<size_t>(*spec.precision - size), '0');
    Digits(spec, negative, prefix, digits, true);
  }

  void Real(const Spec& spec, const Value& value) {
    if (!value.is_number())
      throw TemplateError(
          fmt::format("format: %{} needs a number, got a {}", spec.type, value.TypeName()));
    const double number = value.AsDouble();
    const std::string form =
        fmt::format("{{:{}.{}{}}}", spec.alternate ? "#" : "", spec.precision.value_or(6),
                    std::isfinite(number) ? std::string(1, spec.type) : "");
    const double size = std::fabs(number);
    const std::string digits = std::isnan(size)   ? "nan"
                               : std::isinf(size) ? "inf"
                                                  : fmt::format(fmt::runtime(form), size);
    Digits(spec, std::signbit(number) && !std::isnan(number), "", digits, true);
  }

  const Str& format_;
  const std::string_view view_;
  const Value& args_;
  const int64_t bytes_max_;
  size_t at_ = 0;
  size_t used_ = 0;
  StrBuilder out_;
};

}  // namespace

Str PercentFormat(const Str& format, const Value& args, int64_t bytes_max) {
  return Formatter(format, args, bytes_max).Run();
}

}  // namespace fathom::jinja
