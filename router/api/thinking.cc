#include "router/api/thinking.h"

#include "common/reason.h"

namespace fathom::router {
namespace {

std::optional<int32_t> BudgetOf(const PublicThinking& thinking, const ThinkingBudgets& budgets) {
  if (thinking.token_budget) return thinking.token_budget;
  if (thinking.effort == "none") return 0;
  if (thinking.effort == "minimal" || thinking.effort == "low") return budgets.low;
  if (thinking.effort == "medium") return budgets.medium;
  if (thinking.effort == "high" || thinking.effort == "xhigh") return budgets.high;
  return std::nullopt;
}

}  // namespace

std::optional<bool> ThinkingByEffort(const PublicThinking& thinking) {
  if (thinking.effort.empty()) return std::nullopt;
  return thinking.effort != "none";
}

absl::StatusOr<ThinkingParams> ResolveThinking(const PublicThinking& thinking,
                                               const ThinkingBudgets& budgets,
                                               const Tokenizer* tokenizer,
                                               const std::optional<ThinkingForm>& form,
                                               std::span<const TokenId> prompt_ids,
                                               int32_t max_tokens) {
  const std::optional<int32_t> budget = BudgetOf(thinking, budgets);
  if (!budget || *budget >= max_tokens) return ThinkingParams{};
  if (tokenizer == nullptr || !form || !form->begin.id || !form->end.id) {
    // A model that does not think has no reasoning to end.
    if (!thinking.token_budget && thinking.effort == "none") return ThinkingParams{};
    const char* field = thinking.token_budget ? "thinking.token_budget" : "thinking.effort";
    return WithReason(
        Unimplemented("{} needs a model whose reasoning is between two tokens (<think> and "
                      "</think>), and this one has none that the router knows; leave it out",
                      field),
        Reason::kNotImplemented, field);
  }
  const bool opened = form->from_start || PromptOpensThinking(*tokenizer, *form, prompt_ids);
  return ThinkingParams{*form->begin.id, *form->end.id, *budget, opened};
}

}  // namespace fathom::router
