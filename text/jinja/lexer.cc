#include "text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace fathom::router::jinja {
namespace {

bool IsNameStart(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool IsNamePart(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool IsSpace(char c) { return std::strchr(" \t\n\r\v\f", c) != nullptr && c != '\0'; }

void AppendUtf8(uint32_t code, std::string* out) {
  if (code < 0x80) {
    *out += static_cast<char>(code);
  } else if (code < 0x800) {
    *out += static_cast<char>(0xC0 | code >> 6);
    *out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    *out += static_cast<char>(0xE0 | code >> 12);
    *out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    *out += static_cast<char>(0x80 | (code & 0x3F));
  }
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

  // Plain text up to the next tag, then that tag.
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
      while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
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

  // lstrip_blocks: blanks between the start of the line and the tag go.
  std::string_view WithoutIndent(std::string_view text, size_t text_start) const {
    size_t keep = text.size();
    while (keep > 0 && (text[keep - 1] == ' ' || text[keep - 1] == '\t')) --keep;
    const bool line_start =
        keep > 0 ? text[keep - 1] == '\n' : text_start == 0 || source_[text_start - 1] == '\n';
    return line_start ? text.substr(0, keep) : text;
  }

  void Emit(std::string_view text) {
    if (!text.empty()) Push(TokenKind::kText, std::string(text));
  }

  // After a tag: "-" eats all white space; else trim_blocks eats one newline after blocks and
  // comments.
  void AfterTag(char sign, bool block) {
    if (sign == '-') {
      size_t end = at_;
      while (end < source_.size() && IsSpace(source_[end])) ++end;
      Advance(end);
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
      while (at_ < source_.size() && IsSpace(source_[at_])) Advance(at_ + 1);
      if (at_ >= source_.size()) Fail(output ? "{{ is not closed by }}" : "{% is not closed by %}");
      const std::string_view rest = source_.substr(at_);
      const std::string_view close = output ? "}}" : "%}";
      const bool signed_close =
          (rest[0] == '-' || rest[0] == '+') && rest.substr(1).starts_with(close);
      // "}}" inside a dict literal cannot be told apart by looking ahead; braces are counted
      // instead.
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
    AfterTag(sign, true);
    for (size_t open = source_.find("{%", at_); open != std::string_view::npos;
         open = source_.find("{%", open + 2)) {
      size_t word = open + 2;
      const bool strip = word < source_.size() && source_[word] == '-';
      while (word < source_.size() && (IsSpace(source_[word]) || source_[word] == '-')) ++word;
      if (!source_.substr(word).starts_with("endraw")) continue;
      std::string_view text = source_.substr(at_, open - at_);
      while (strip && !text.empty() && IsSpace(text.back())) text.remove_suffix(1);
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

  void Number(std::string_view rest) {
    size_t end = 0;
    while (end < rest.size() &&
           (std::isdigit(static_cast<unsigned char>(rest[end])) != 0 || rest[end] == '_'))
      ++end;
    bool real = false;
    if (end + 1 < rest.size() && rest[end] == '.' &&
        std::isdigit(static_cast<unsigned char>(rest[end + 1])) != 0) {
      real = true;
      ++end;
      while (end < rest.size() && std::isdigit(static_cast<unsigned char>(rest[end])) != 0) ++end;
    }
    size_t exponent = end;
    if (exponent < rest.size() && (rest[exponent] == 'e' || rest[exponent] == 'E')) {
      ++exponent;
      if (exponent < rest.size() && (rest[exponent] == '+' || rest[exponent] == '-')) ++exponent;
      const size_t digits_start = exponent;
      while (exponent < rest.size() &&
             std::isdigit(static_cast<unsigned char>(rest[exponent])) != 0)
        ++exponent;
      if (exponent > digits_start) {
        real = true;
        end = exponent;
      }
    }
    std::string digits(rest.substr(0, end));
    std::erase(digits, '_');
    double as_real = 0;
    int64_t as_int = 0;
    const char* last = digits.data() + digits.size();
    const bool good = real ? std::from_chars(digits.data(), last, as_real).ec == std::errc()
                           : std::from_chars(digits.data(), last, as_int).ec == std::errc();
    if (!good) Fail(fmt::format("the number {} is too large", digits));
    Push(TokenKind::kNumber, digits, real ? Value(as_real) : Value(as_int));
    Advance(at_ + end);
  }

  void String(std::string_view rest) {
    std::string text;
    size_t i = 1;
    for (; i < rest.size() && rest[i] != rest[0]; ++i) {
      if (rest[i] != '\\' || i + 1 >= rest.size()) {
        text += rest[i];
        continue;
      }
      const char c = rest[++i];
      static constexpr std::string_view kFrom = "ntr\\'\"bfv0a", kTo("\n\t\r\\'\"\b\f\v\0\a", 11);
      if (const size_t known = kFrom.find(c); known != std::string_view::npos) {
        text += kTo[known];
      } else if (c == 'u' && i + 4 < rest.size()) {
        uint32_t code = 0;
        if (std::from_chars(&rest[i + 1], &rest[i + 5], code, 16).ptr != &rest[i + 5])
          Fail("bad \\u escape");
        AppendUtf8(code, &text);
        i += 4;
      } else if (c != '\n') {
        text += '\\';
        text += c;
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
      Fail(fmt::format("unexpected character '{}'", rest[0]));
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

}  // namespace fathom::router::jinja
