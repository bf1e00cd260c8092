// text/jinja/lexer.h: splits the source of a template into tokens, with Jinja's rules for white
// space in chat templates: trim_blocks, lstrip_blocks, one final newline dropped. Pure; throws
// TemplateError.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace fathom::jinja {

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
  std::string text;  // A text, a name or an operator; for a string, its unescaped value.
  Value number;
  int line = 0;
};

std::vector<Token> Tokenize(std::string_view source);

}  // namespace fathom::jinja
