// text/reasoning.h: which generated tokens are thinking and which are the answer.
// A function of the ids alone. Thinking is open from the start when the prompt ends with the token
// that starts it, or from the first generated token when that is the one (white space aside, in
// both); it ends with the token that ends thinking. After that, and without thinking, everything is
// the answer.
#pragma once

#include <optional>
#include <span>

#include "common/types.h"
#include "text/tokenizer.h"

namespace fathom::router {

struct ThinkingTokens {
  TokenId begin = 0;  // <think>
  TokenId end = 0;    // </think>
};

// nullopt if the tokenizer lacks one of the two.
std::optional<ThinkingTokens> FindThinkingTokens(const Tokenizer& tokenizer);

// Whether generation after this prompt starts inside thinking.
bool PromptOpensThinking(const Tokenizer& tokenizer, const ThinkingTokens& thinking,
                         std::span<const TokenId> prompt_ids);

enum class Channel {
  kReasoning,
  kText,
  kNone,  // The token that starts or ends thinking: in neither text.
  // White space before anything else: in neither text if the token that starts thinking follows,
  // else the answer's.
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

}  // namespace fathom::router
