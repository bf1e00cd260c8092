// text/jinja/lexer.h: template source to tokens, with Jinja's whitespace rules as chat
// templates use them: trim_blocks, lstrip_blocks, one final newline dropped. Pure; throws
// TemplateError.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace fathom::router::jinja {

enum class TokenKind {
  kText,
  kOutputBegin,
  kOutputEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kNumber,
  kString,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  // Text, name or operator; a string's value, unescaped.
  Value number;
  int line = 0;
};

std::vector<Token> Tokenize(std::string_view source);

}  // namespace fathom::router::jinja
