#include "router/frontend/http/answer_items.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace fathom::router {

bool EndedByItself(FinishReason reason) {
  return reason == FinishReason::kEndToken || reason == FinishReason::kStopToken ||
         reason == FinishReason::kStopString;
}

AnswerItems::AnswerItems(const Tokenizer* tokenizer) {
  if (tokenizer != nullptr) thinking_end_ = tokenizer->FindToken("</think>");
}

void AnswerItems::Open(AnswerItem item, std::vector<ItemStep>* steps) {
  if (open_) Close(/*whole=*/true, steps);
  items_.push_back(std::move(item));
  open_ = true;
  steps->push_back({ItemStep::Kind::kOpen, items_.size() - 1, ""});
}

void AnswerItems::Close(bool whole, std::vector<ItemStep>* steps) {
  items_.back().whole = whole;
  open_ = false;
  steps->push_back({ItemStep::Kind::kClose, items_.size() - 1, ""});
}

void AnswerItems::AddText(AnswerItem::Kind kind, const std::string& text,
                          std::vector<ItemStep>* steps) {
  if (text.empty()) return;
  if (!open_ || items_.back().kind != kind) Open({.kind = kind}, steps);
  items_.back().text += text;
  steps->push_back({ItemStep::Kind::kDelta, items_.size() - 1, text});
}

void AnswerItems::AddCall(const ToolCallDelta& delta, std::vector<ItemStep>* steps) {
  if (!delta.name.empty()) {
    Open({.kind = AnswerItem::Kind::kCall, .call_id = delta.id, .name = delta.name}, steps);
  }
  if (!open_ || items_.back().kind != AnswerItem::Kind::kCall) return;
  if (!delta.arguments.empty()) {
    items_.back().text += delta.arguments;
    steps->push_back({ItemStep::Kind::kDelta, items_.size() - 1, delta.arguments});
  }
  if (delta.end) Close(delta.whole, steps);
}

// The end of the reasoning is a token in the usual forms. In other forms it is known only by what
// follows, to an event.
void AnswerItems::CountReasoning(const TokensEvent& event) {
  reasoned_ = reasoned_ || !event.reasoning.empty();
  if (reasoning_over_) return;
  const auto end = thinking_end_ ? std::ranges::find(event.ids, *thinking_end_) : event.ids.end();
  reasoning_tokens_ += static_cast<int32_t>(end - event.ids.begin());
  if (end != event.ids.end()) {
    ++reasoning_tokens_;
    reasoning_over_ = true;
  }
  if (!event.text.empty() || !event.calls.empty()) reasoning_over_ = true;
}

std::vector<ItemStep> AnswerItems::OnTokens(const TokensEvent& event) {
  CountReasoning(event);
  std::vector<ItemStep> steps;
  AddText(AnswerItem::Kind::kReasoning, event.reasoning, &steps);
  size_t done = 0;
  for (const ToolCallDelta& delta : event.calls) {
    const size_t before = std::clamp(delta.text_before, done, event.text.size());
    AddText(AnswerItem::Kind::kText, event.text.substr(done, before - done), &steps);
    done = before;
    AddCall(delta, &steps);
  }
  AddText(AnswerItem::Kind::kText, event.text.substr(done), &steps);
  return steps;
}

std::vector<ItemStep> AnswerItems::OnFinish(const FinishEvent& event) {
  std::vector<ItemStep> steps;
  // A call without its own end was cut.
  const bool call = open_ && items_.back().kind == AnswerItem::Kind::kCall;
  if (open_) Close(!call && EndedByItself(event.reason), &steps);
  return steps;
}

bool AnswerItems::has_call() const {
  const auto called = [](const AnswerItem& item) {
    return item.kind == AnswerItem::Kind::kCall && item.whole;
  };
  return std::ranges::any_of(items_, called);
}

}  // namespace fathom::router
