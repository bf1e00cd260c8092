#include "text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "common/utf8.h"

namespace fathom::jinja {
namespace {

bool IsNameStart(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool IsNamePart(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// The number of bytes of white space (by Python's definition) at the end and at the start of a
// text.
size_t SpaceBehind(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t begin = end - 1, size = 0;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    if (!IsSpaceAt(text.substr(begin, end - begin), &size)) break;
    end = begin;
  }
  return text.size() - end;
}
size_t SpaceBefore(std::string_view text) {
  size_t begin = 0, size = 0;
  while (begin < text.size() && IsSpaceAt(text.substr(begin), &size)) begin += size;
  return begin;
}

bool IsDigitOf(char c, int base) {
  const int lower = std::tolower(static_cast<unsigned char>(c));
  const int digit = lower >= 'a' ? lower - 'a' + 10 : lower - '0';
  return std::isalnum(static_cast<unsigned char>(c)) != 0 && digit < base;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {
    if (source_.ends_with('\n')) source_.remove_suffix(1);
    if (source_.ends_with('\r')) source_.remove_suffix(1);
  }

  std::vector<Token> Run() {
    while (at_ < source_.size()) Text();
    Push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    throw TemplateError(fmt::format("line {}: {}", line_, what));
  }

  void Push(TokenKind kind, std::string text, Value number = {}) {
    tokens_.push_back({kind, std::move(text), std::move(number), line_});
  }

  void Advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    at_ = to;
  }

  // Reads plain text up to the next tag, then the tag.
  void Text() {
    size_t open = at_;
    while (true) {
      open = source_.find('{', open);
      if (open == std::string_view::npos || open + 1 >= source_.size()) {
        open = source_.size();
        break;
      }
      if (std::strchr("{%#", source_[open + 1]) != nullptr) break;
      ++open;
    }
    std::string_view text = source_.substr(at_, open - at_);
    const size_t text_start = at_;
    if (open == source_.size()) {
      Emit(text);
      Advance(open);
      return;
    }
    const char type = source_[open + 1];
    const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
    if (sign == '-') {
      text.remove_suffix(SpaceBehind(text));
    } else if (type != '{' && sign != '+') {
      text = WithoutIndent(text, text_start);
    }
    Emit(text);
    Advance(open + 2 + (sign == '-' || sign == '+' ? 1 : 0));
    if (type == '#') {
      Comment();
    } else {
      Tag(type == '{');
    }
  }

  // lstrip_blocks: removes white space between the start of the line and the tag.
  std::string_view WithoutIndent(std::string_view text, size_t text_start) const {
    const size_t newline = text.rfind('\n');
    const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
    const bool line_start = begin > 0 || text_start == 0 || source_[text_start - 1] == '\n';
    const bool blank = SpaceBehind(text.substr(begin)) == text.size() - begin;
    return line_start && blank ? text.substr(0, begin) : text;
  }

  void Emit(std::string_view text) {
    if (!text.empty()) Push(TokenKind::kText, std::string(text));
  }

  // After a tag: "-" removes all white space; otherwise trim_blocks removes one newline after
  // blocks and comments.
  void AfterTag(char sign, bool block) {
    if (sign == '-') {
      Advance(at_ + SpaceBefore(source_.substr(at_)));
    } else if (block && sign != '+' && at_ < source_.size() && source_[at_] == '\n') {
      Advance(at_ + 1);
    }
  }

  void Comment() {
    const size_t close = source_.find("#}", at_);
    if (close == std::string_view::npos) Fail("a comment is not closed by #}");
    const char sign = close > at_ ? source_[close - 1] : '\0';
    Advance(close + 2);
    AfterTag(sign, true);
  }

  void Tag(bool output) {
    const size_t first = tokens_.size();
    Push(output ? TokenKind::kOutputBegin : TokenKind::kBlockBegin, "");
    while (true) {
      Advance(at_ + SpaceBefore(source_.substr(at_)));
      if (at_ >= source_.size()) Fail(output ? "{{ is not closed by }}" : "{% is not closed by %}");
      const std::string_view rest = source_.substr(at_);
      const std::string_view close = output ? "}}" : "%}";
      const bool signed_close =
          (rest[0] == '-' || (rest[0] == '+' && !output)) && rest.substr(1).starts_with(close);
      // Looking ahead cannot distinguish this from "}}" inside a dict literal, so braces are
      // counted.
      if (signed_close || (depth_ == 0 && rest.starts_with(close))) {
        const char sign = signed_close ? rest[0] : '\0';
        Push(output ? TokenKind::kOutputEnd : TokenKind::kBlockEnd, "");
        Advance(at_ + close.size() + (signed_close ? 1 : 0));
        depth_ = 0;
        if (!output && tokens_.size() == first + 3 && tokens_[first + 1].text == "raw") {
          tokens_.resize(first);
          Raw(sign);
          return;
        }
        AfterTag(sign, !output);
        return;
      }
      Lexeme(rest);
    }
  }

  void Raw(char sign) {
    AfterTag(sign, /*block=*/false);
    for (size_t open = source_.find("{%", at_); open != std::string_view::npos;
         open = source_.find("{%", open + 2)) {
      size_t word = open + 2;
      const char before = word < source_.size() ? source_[word] : '\0';
      if (before == '-' || before == '+') ++word;
      word += SpaceBefore(source_.substr(word));
      if (!source_.substr(word).starts_with("endraw")) continue;
      std::string_view text = source_.substr(at_, open - at_);
      if (before == '-') {
        text.remove_suffix(SpaceBehind(text));
      } else if (before != '+') {
        text = WithoutIndent(text, at_);
      }
      Emit(text);
      const size_t close = source_.find("%}", word);
      if (close == std::string_view::npos) break;
      Advance(close + 2);
      AfterTag(source_[close - 1], true);
      return;
    }
    Fail("raw is not closed by endraw");
  }

  void Lexeme(std::string_view rest) {
    const char c = rest[0];
    if (IsNameStart(c)) {
      const auto end = std::find_if_not(rest.begin(), rest.end(), IsNamePart);
      Push(TokenKind::kName, std::string(rest.begin(), end));
      Advance(at_ + static_cast<size_t>(end - rest.begin()));
    } else if (std::isdigit(static_cast<unsigned char>(c)) != 0) {
      Number(rest);
    } else if (c == '\'' || c == '"') {
      String(rest);
    } else {
      Operator(rest);
    }
  }

  // The end of digits that may have single "_" between them.
  static size_t DigitsEnd(std::string_view rest, size_t at, int base) {
    while (at < rest.size() && IsDigitOf(rest[at], base)) {
      ++at;
      if (at + 1 < rest.size() && rest[at] == '_' && IsDigitOf(rest[at + 1], base)) ++at;
    }
    return at;
  }

  void Number(std::string_view rest) {
    const char mark = rest.size() > 2 && rest[0] == '0' ? static_cast<char>(rest[1] | 0x20) : '\0';
    const int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
    const size_t digits_begin = base == 10 ? 0 : rest[2] == '_' ? 3 : 2;
    if (base != 10 && digits_begin < rest.size() && IsDigitOf(rest[digits_begin], base)) {
      const size_t end = DigitsEnd(rest, digits_begin, base);
      return Integer(rest.substr(0, end), rest.substr(digits_begin, end - digits_begin), base);
    }
    size_t end = DigitsEnd(rest, 0, 10);
    const size_t whole_end = end;
    if (end + 1 < rest.size() && rest[end] == '.' && IsDigitOf(rest[end + 1], 10))
      end = DigitsEnd(rest, end + 1, 10);
    size_t exponent = end;
    if (exponent < rest.size() && (rest[exponent] | 0x20) == 'e') {
      ++exponent;
      if (exponent < rest.size() && (rest[exponent] == '+' || rest[exponent] == '-')) ++exponent;
      if (exponent < rest.size() && IsDigitOf(rest[exponent], 10))
        end = DigitsEnd(rest, exponent, 10);
    }
    if (end == whole_end) {
      if (end > 1 && rest[0] == '0' && rest.substr(0, end).find_first_not_of("0_") != rest.npos)
        Fail(fmt::format("the number {} begins with 0", rest.substr(0, end)));
      return Integer(rest.substr(0, end), rest.substr(0, end), 10);
    }
    std::string digits(rest.substr(0, end));
    std::erase(digits, '_');
    Push(TokenKind::kNumber, digits, Value(std::strtod(digits.c_str(), nullptr)));
    Advance(at_ + end);
  }

  void Integer(std::string_view text, std::string_view with_marks, int base) {
    std::string digits(with_marks);
    std::erase(digits, '_');
    int64_t value = 0;
    const char* last = digits.data() + digits.size();
    if (std::from_chars(digits.data(), last, value, base).ec != std::errc())
      Fail(fmt::format("the number {} is too large", text));
    Push(TokenKind::kNumber, std::string(text), Value(value));
    Advance(at_ + text.size());
  }

  // Reads the character of an escape with this many digits at rest[*at...] and moves *at after
  // them.
  void CodeEscape(std::string_view rest, size_t* at, size_t digits, std::string* text) const {
    uint32_t code = 0;
    const char* begin = rest.data() + *at;
    const bool whole = *at + digits <= rest.size() &&
                       std::from_chars(begin, begin + digits, code, 16).ptr == begin + digits;
    if (!whole) Fail(fmt::format("an escape of a string lacks its {} hexadecimal digits", digits));
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      Fail(fmt::format("the escape of {:X} in a string is no character", code));
    AppendUtf8(code, text);
    *at += digits;
  }

  // Reads an escape of Python's strings. *at points to the character after the backslash and moves
  // after the escape.
  void Escape(std::string_view rest, size_t* at, std::string* text) const {
    const char c = rest[(*at)++];
    static constexpr std::string_view kFrom = "ntr\\'\"bfva", kTo = "\n\t\r\\'\"\b\f\v\a";
    if (const size_t known = kFrom.find(c); known != std::string_view::npos) {
      *text += kTo[known];
    } else if (IsDigitOf(c, 8)) {
      auto code = static_cast<uint32_t>(c - '0');
      for (int i = 0; i < 2 && *at < rest.size() && IsDigitOf(rest[*at], 8); ++i)
        code = code * 8 + static_cast<uint32_t>(rest[(*at)++] - '0');
      AppendUtf8(code, text);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      CodeEscape(rest, at, c == 'x' ? 2 : c == 'u' ? 4 : 8, text);
    } else if (c == 'N') {
      Fail("\\N escapes of strings are not supported in chat templates; write the character");
    } else if (c != '\n') {
      *text += '\\';
      *text += c;
    }
  }

  void String(std::string_view rest) {
    std::string text;
    size_t i = 1;
    while (i < rest.size() && rest[i] != rest[0]) {
      if (rest[i] != '\\' || i + 1 >= rest.size()) {
        text += rest[i++];
      } else {
        Escape(rest, &++i, &text);
      }
    }
    if (i >= rest.size()) Fail("a string is not closed");
    Push(TokenKind::kString, std::move(text));
    Advance(at_ + i + 1);
  }

  void Operator(std::string_view rest) {
    for (const std::string_view op : {"==", "!=", "<=", ">=", "//", "**"}) {
      if (rest.starts_with(op)) {
        Push(TokenKind::kOperator, std::string(op));
        Advance(at_ + 2);
        return;
      }
    }
    if (std::strchr("+-*/%~<>=()[]{}.,:|", rest[0]) == nullptr)
      Fail(fmt::format("unexpected character '{}'", rest.substr(0, NextCharacter(rest, 0))));
    if (std::strchr("([{", rest[0]) != nullptr) ++depth_;
    if (std::strchr(")]}", rest[0]) != nullptr) depth_ = std::max(0, depth_ - 1);
    Push(TokenKind::kOperator, std::string(1, rest[0]));
    Advance(at_ + 1);
  }

  std::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  int depth_ = 0;  // Open brackets inside the current tag.
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace fathom::jinja
