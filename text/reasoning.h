// text/reasoning.h: separates generated tokens into reasoning and answer. The result depends on the
// ids alone. Reasoning starts at once if the prompt ends with the token that starts thinking, or at
// the first generated token if it is that token (in both cases white space is ignored). It ends
// with the token that ends thinking. All tokens after it, or all tokens if there is no reasoning,
// are the answer.
#pragma once

#include <optional>
#include <span>

#include "common/types.h"
#include "text/tokenizer.h"

namespace fathom {

struct ThinkingTokens {
  TokenId begin = 0;  // <think>
  TokenId end = 0;    // </think>
};

// nullopt: the tokenizer lacks one of the two tokens.
std::optional<ThinkingTokens> FindThinkingTokens(const Tokenizer& tokenizer);

// Whether generation after this prompt starts inside reasoning.
bool PromptOpensThinking(const Tokenizer& tokenizer, const ThinkingTokens& thinking,
                         std::span<const TokenId> prompt_ids);

enum class Channel {
  kReasoning,
  kText,
  kNone,  // The token that starts or ends thinking; in neither text.
  // White space before any other token. If the token that starts thinking follows, it is in neither
  // text; otherwise it belongs to the answer.
  kHeld,
};

class ReasoningSplitter {
 public:
  // `tokenizer` outlives this.
  ReasoningSplitter(const Tokenizer* tokenizer, const ThinkingTokens& thinking,
                    bool prompt_opens_thinking)
      : tokenizer_(tokenizer),
        thinking_(thinking),
        state_(prompt_opens_thinking ? State::kThinking : State::kStart) {}

  Channel Next(TokenId id);

 private:
  enum class State { kStart, kThinking, kAnswer };
  const Tokenizer* tokenizer_;
  ThinkingTokens thinking_;
  State state_;
};

}  // namespace fathom
