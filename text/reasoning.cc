#include "text/reasoning.h"

#include "common/utf8.h"

namespace fathom {
namespace {

bool IsWhiteSpaceToken(const Tokenizer& tokenizer, TokenId id) {
  if (id < 0 || id >= tokenizer.vocab_size()) return false;
  const std::string_view bytes = tokenizer.TokenBytes(id);
  return FirstInvalidUtf8(bytes) == std::string_view::npos && TrimLeft(bytes).empty();
}

}  // namespace

std::optional<ThinkingTokens> FindThinkingTokens(const Tokenizer& tokenizer) {
  const std::optional<TokenId> begin = tokenizer.FindToken("<think>");
  const std::optional<TokenId> end = tokenizer.FindToken("</think>");
  if (!begin || !end) return std::nullopt;
  return ThinkingTokens{*begin, *end};
}

bool PromptOpensThinking(const Tokenizer& tokenizer, const ThinkingTokens& thinking,
                         std::span<const TokenId> prompt_ids) {
  for (size_t i = prompt_ids.size(); i > 0; --i) {
    const TokenId id = prompt_ids[i - 1];
    if (id == thinking.begin) return true;
    if (!IsWhiteSpaceToken(tokenizer, id)) return false;
  }
  return false;
}

Channel ReasoningSplitter::Next(TokenId id) {
  if (state_ == State::kStart && id == thinking_.begin) {
    state_ = State::kThinking;
    return Channel::kNone;
  }
  if (state_ == State::kStart && IsWhiteSpaceToken(*tokenizer_, id)) return Channel::kHeld;
  if (state_ == State::kThinking) {
    if (id != thinking_.end) return Channel::kReasoning;
    state_ = State::kAnswer;
    return Channel::kNone;
  }
  state_ = State::kAnswer;
  return Channel::kText;
}

}  // namespace fathom
