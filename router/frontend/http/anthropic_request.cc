#include "router/frontend/http/anthropic_request.h"

#include <utility>

#include "common/reason.h"
#include "router/frontend/http/anthropic_answer.h"
#include "router/frontend/http/anthropic_error.h"
#include "router/frontend/http/anthropic_messages.h"
#include "router/frontend/http/conversation.h"

namespace fathom::router {
namespace {

constexpr char kWithout[] = "leave it out";

// Thinking that is not mentioned is as the chat template has it.
void ReadAnthropicThinking(FieldReader* body, PublicRequest* params, ChatPrompt* chat, bool* omit) {
  const JsonValue* value = body->Find("thinking");
  if (value == nullptr) return;
  FieldReader thinking(*value, "thinking");
  std::string type, display = "summarized";
  thinking.Take("type", &type);
  thinking.Take("budget_tokens", &params->thinking.token_budget);
  thinking.Take("display", &display);
  if (thinking.ok() && display != "summarized" && display != "omitted") {
    thinking.FailType("display", JsonValue(display), "\"summarized\" or \"omitted\"");
  }
  *omit = display == "omitted";
  if (thinking.ok() && type != "enabled" && type != "disabled" && type != "adaptive") {
    thinking.FailType("type", JsonValue(type), "\"enabled\", \"disabled\" or \"adaptive\"");
  }
  if (thinking.ok() && type != "enabled" && params->thinking.token_budget) {
    thinking.Fail(WithReason(Invalid("thinking.budget_tokens is {}, but thinking.type is \"{}\"; "
                                     "send the type \"enabled\", or leave the budget out",
                                     *params->thinking.token_budget, type),
                             Reason::kOutOfRange, "thinking.budget_tokens"));
  }
  if (const absl::Status status = thinking.Finish(); !status.ok()) return body->Fail(status);
  chat->enable_thinking = type != "disabled";
}

void ReadOutputConfig(FieldReader* body, PublicRequest* params) {
  const JsonValue* value = body->Find("output_config");
  if (value == nullptr) return;
  FieldReader config(*value, "output_config");
  config.Take("effort", &params->thinking.effort);
  if (params->thinking.effort == "max") params->thinking.effort = "xhigh";
  config.Refuse("format", "ask for the form in a message");
  config.Refuse("task_budget", kWithout);
  if (const absl::Status status = config.Finish(); !status.ok()) body->Fail(status);
}

void RefuseAnthropicFields(FieldReader* body) {
  // The tokens of earlier thinking are kept or left out by the chat template.
  body->Only(
      "context_management",
      {R"({"edits": []})", R"({"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]})"},
      "send the messages as the model shall see them");
  body->Refuse("output_format", "ask for the form in a message");
  body->Refuse("container", "this server runs no tools");
  body->Only("mcp_servers", {"[]"}, "this server runs no tools");
  body->Only("service_tier", {"\"auto\"", "\"standard_only\""}, kWithout);
  body->Only("inference_geo", {"\"global\""}, kWithout);
  body->Only("speed", {"\"standard\""}, kWithout);
  // These name the caller, and decide nothing here.
  for (const char* accepted : {"metadata", "user_profile_id", "workspace_id", "diagnostics"}) {
    body->Accept(accepted);
  }
  body->Accept("cache_control");  // The prefix cache needs no marks.
}

}  // namespace

absl::StatusOr<FormRequest> ReadMessages(const JsonValue& value) {
  FormRequest read;
  OpenAiRequest& request = read.request;
  FieldReader body(value, "");
  ChatPrompt chat;
  ReadServerFields(&body, &request, &chat);
  ReadAnthropicChat(&body, &chat, &read.form.names.messages);
  PublicStop& stop = request.params.stop;
  body.Take("max_tokens", &stop.max_tokens);
  body.Take("stop_sequences", &stop.strings);
  bool omit_thinking = false;
  ReadAnthropicThinking(&body, &request.params, &chat, &omit_thinking);
  ReadOutputConfig(&body, &request.params);
  RefuseAnthropicFields(&body);
  FATHOM_RETURN_IF_ERROR(body.Finish());
  request.answer.include_reasoning = !omit_thinking;
  request.prompts.emplace_back(std::move(chat));
  AnswerForm& form = read.form;
  form.names.prompt = "messages";
  form.names.stop = "stop_sequences";
  form.names.thinking_budget = "thinking.budget_tokens";
  form.names.effort = "output_config.effort";
  form.error = AnthropicErrorAnswer;
  form.id_header = "request-id";
  form.writer = [stops = stop.strings](AnswerParts parts) -> std::unique_ptr<AnswerWriter> {
    return std::make_unique<AnthropicAnswer>(std::move(parts), stops);
  };
  return read;
}

absl::StatusOr<CountTokensRequest> ReadCountTokens(const JsonValue& value) {
  FieldReader body(value, "");
  CountTokensRequest request;
  OpenAiRequest unused;
  bool omit_thinking = false;
  std::vector<std::string> paths;
  ReadServerFields(&body, &unused, &request.chat);
  ReadAnthropicChat(&body, &request.chat, &paths);
  ReadAnthropicThinking(&body, &unused.params, &request.chat, &omit_thinking);
  ReadOutputConfig(&body, &unused.params);
  RefuseAnthropicFields(&body);
  FATHOM_RETURN_IF_ERROR(body.Finish());
  request.model = unused.params.model;
  return request;
}

}  // namespace fathom::router
