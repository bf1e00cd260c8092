// router/api/tool_use.h: what the tools of a request and the forms of the model (text/
// tool_call_form.h) mean for its answer: which tool calls are looked for, and which text is
// reasoning. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "router/api/requests.h"
#include "text/tokenizer.h"
#include "text/tool_call_form.h"

namespace fathom::router {

// The names of the forms in which the model answers; "none": the router looks for none. An empty
// one of reasoning: the tokenizer's <think> and </think>, if it has them.
struct AnswerForms {
  std::string reasoning;
  std::string tool_calls = "none";
};

// `reasoning` and `tool_calls` are the values of --reasoning-parser and --tool-call-parser: the
// name of a form, "none", or "auto", which takes what the model's folder shows: `detected`, and
// the tokens <think> and </think>. INVALID_ARGUMENT names the flag.
absl::StatusOr<AnswerForms> ResolveForms(const std::string& reasoning,
                                         const std::string& tool_calls,
                                         const std::optional<ToolCallForm>& detected,
                                         const Tokenizer& tokenizer);

// Sets the members of `text` that concern tool calls. Errors: INVALID_ARGUMENT, or UNIMPLEMENTED
// with NOT_IMPLEMENTED; the fields are tools_json and tool_choice.
absl::Status ApplyTools(const ChatPrompt& chat, const AnswerForms& forms, TextOptions* text);

}  // namespace fathom::router
