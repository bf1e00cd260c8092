// router/frontend/http/answer_items.h: an answer of one sequence as a list of items: reasoning,
// text and tool calls, in the order in which the model wrote them. /v1/responses calls them output
// items, /v1/messages content blocks. Pure.
//
// At most one item is open, and it is the last one. Items depend on the tokens alone; only the
// division of their texts into deltas depends on how the tokens came.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "router/sessions/client_events.h"
#include "text/tokenizer.h"

namespace fathom::router {

struct AnswerItem {
  enum class Kind : uint8_t { kReasoning, kText, kCall };
  Kind kind = Kind::kText;
  std::string text = {};                // Of a call: its arguments.
  std::string call_id = {}, name = {};  // Of a call.
  bool whole = false;  // The model ended it. Of a call: its arguments are one JSON object.
};

// What happened to an item.
struct ItemStep {
  enum class Kind : uint8_t { kOpen, kDelta, kClose };
  Kind kind = Kind::kDelta;
  size_t item = 0;
  std::string text;  // Of kDelta; not empty.
};

class AnswerItems {
 public:
  // `tokenizer` may be null. It finds the end of the reasoning among the ids.
  explicit AnswerItems(const Tokenizer* tokenizer);

  // The steps that the event makes, in order.
  std::vector<ItemStep> OnTokens(const TokensEvent& event);
  // The sequence has ended; closes the open item, if there is one.
  std::vector<ItemStep> OnFinish(const FinishEvent& event);

  const std::vector<AnswerItem>& items() const { return items_; }
  bool has_call() const;
  // The generated tokens up to the end of the reasoning, its marker included; 0 without reasoning.
  int32_t reasoning_tokens() const { return reasoned_ ? reasoning_tokens_ : 0; }

 private:
  void Open(AnswerItem item, std::vector<ItemStep>* steps);
  void Close(bool whole, std::vector<ItemStep>* steps);
  void AddText(AnswerItem::Kind kind, const std::string& text, std::vector<ItemStep>* steps);
  void AddCall(const ToolCallDelta& delta, std::vector<ItemStep>* steps);
  void CountReasoning(const TokensEvent& event);

  std::vector<AnswerItem> items_;
  bool open_ = false;  // The last item is.
  std::optional<TokenId> thinking_end_;
  bool reasoned_ = false;
  bool reasoning_over_ = false;
  int32_t reasoning_tokens_ = 0;
};

// The model ended the answer itself, or a stop string or token of the request did.
bool EndedByItself(FinishReason reason);

}  // namespace fathom::router
