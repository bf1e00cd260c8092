// router/api/thinking.h: what a request's thinking budget or effort means for its record
// (docs/API.md, "Thinking"). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "common/status.h"
#include "router/api/admission.h"
#include "router/api/model_folder.h"
#include "text/tokenizer.h"
#include "text/tool_call_form.h"

namespace fathom::router {

// What an effort says about thinking at all; nullopt: nothing. REQUIRES: CheckFields took it.
std::optional<bool> ThinkingByEffort(const PublicThinking& thinking);

// The record's budget. A budget that the answer cannot reach is none. `tokenizer` may be null, and
// so may `form`: the model has no reasoning that the router knows. UNIMPLEMENTED
// (NOT_IMPLEMENTED): the request asks for a budget, and `form` has no tokens as its markers.
absl::StatusOr<ThinkingParams> ResolveThinking(const PublicThinking& thinking,
                                               const ThinkingBudgets& budgets,
                                               const Tokenizer* tokenizer,
                                               const std::optional<ThinkingForm>& form,
                                               std::span<const TokenId> prompt_ids,
                                               int32_t max_tokens);

}  // namespace fathom::router
