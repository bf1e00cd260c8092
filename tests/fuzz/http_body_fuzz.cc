// Bodies of the HTTP API, for every endpoint. A refusal is a Status whose error object is JSON.
// JSON that is passed on to a chat template is valid, and reading it again gives the same.
#include <nlohmann/json.hpp>

#include "common/check.h"
#include "common/reason.h"
#include "common/utf8.h"
#include "router/frontend/http/anthropic_request.h"
#include "router/frontend/http/field_reader.h"
#include "router/frontend/http/http_error.h"
#include "router/frontend/http/openai_request.h"
#include "router/frontend/http/responses_request.h"
#include "tests/fuzz/fuzz.h"

namespace fathom::router {
namespace {

void CheckRefusal(const absl::Status& status) {
  if (status.ok()) return;
  FATHOM_CHECK(status.code() == absl::StatusCode::kInvalidArgument ||
               status.code() == absl::StatusCode::kUnimplemented);
  FATHOM_CHECK(DetailOf(status).has_value());
  const http::Response answer = ErrorAnswer(status, {.prompt = "prompt[3]"});
  FATHOM_CHECK(answer.status == 400);
  const auto json = nlohmann::json::parse(answer.body, nullptr, /*allow_exceptions=*/false);
  FATHOM_CHECK(json.is_object() && !json["error"]["message"].get<std::string>().empty());
}

void CheckText(const std::string& json) {
  if (json.empty()) return;
  FATHOM_CHECK(nlohmann::json::accept(json));
}

void CheckRequest(const absl::StatusOr<OpenAiRequest>& request) {
  CheckRefusal(request.status());
  if (!request.ok()) return;
  FATHOM_CHECK(!request->prompts.empty() && request->answer.n >= 1);
  FATHOM_CHECK(!request->prompt_list ||
               static_cast<int64_t>(request->prompts.size()) * request->answer.n <= kChoicesMax);
  if (const auto* chat = std::get_if<ChatPrompt>(&request->prompts[0])) {
    CheckText(chat->tools_json);
    CheckText(chat->kwargs_json);
  }
}

// A body of /v1/responses or /v1/messages.
void CheckForm(const absl::StatusOr<FormRequest>& read) {
  CheckRefusal(read.status());
  if (!read.ok()) return;
  CheckRequest(read->request);
  FATHOM_CHECK(read->request.prompts.size() == 1 && read->request.answer.n == 1);
  const auto& chat = std::get<ChatPrompt>(read->request.prompts[0]);
  FATHOM_CHECK(chat.messages.size() == read->form.names.messages.size());
  for (const ChatMessage& message : chat.messages) {
    for (const ChatToolCall& call : message.tool_calls) {
      FATHOM_CHECK(FirstInvalidUtf8(call.arguments_json) == std::string::npos);
    }
  }
  // The object that repeats the request is JSON.
  const std::unique_ptr<AnswerWriter> answer = read->form.writer({.echoes = {""}});
  StartedEvent started;
  started.request_id = "r";
  answer->OnStarted(0, started, {});
  answer->OnFinish(0, {});
  CheckText(answer->Whole());
  const http::Response error = read->form.error(
      WithReason(Invalid("messages[1] x"), Reason::kOutOfRange, "messages[0]"), read->form.names);
  CheckText(error.body);
}

void FuzzBody(const std::string& input) {
  const auto body = ParseBody(input);
  CheckRefusal(body.status());
  if (!body.ok()) return;
  const std::string text = ToJsonText(*body);
  FATHOM_CHECK(FirstInvalidUtf8(text) == std::string::npos);
  const auto again = ParseBody(text);
  FATHOM_CHECK(again.ok() && ToJsonText(*again) == text, "{}", text);
  CheckRequest(ReadChatCompletion(*body));
  CheckRequest(ReadCompletion(*body));
  CheckForm(ReadResponses(*body));
  CheckForm(ReadMessages(*body));
  CheckRefusal(ReadCountTokens(*body).status());
  CheckRefusal(ReadTokenize(*body).status());
  CheckRefusal(ReadDetokenize(*body).status());
}

}  // namespace
}  // namespace fathom::router

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fathom::router::FuzzBody({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  return {
      R"({"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]},
          {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function",
           "function": {"name": "f", "arguments": "{\"x\": 1}"}}], "reasoning": "r"},
          {"role": "tool", "tool_call_id": "c", "content": "7"}],
          "tools": [{"type": "function", "function": {"name": "f",
           "parameters": {"x": [1.5e300, -0.0, 1e-5, null]}}}], "tool_choice": "none",
          "chat_template_kwargs": {"enable_thinking": true, "a": {"b": ["\u0000\ud83d\ude80"]}}})",
      R"({"messages": [{"role": "user", "content": "x"}], "temperature": 0.5, "top_k": -1, "n": 2,
          "stop": ["a", "b"], "logit_bias": {"5": 1, "7": -100.0}, "seed": -9223372036854775808,
          "logprobs": true, "top_logprobs": 3, "stream": true,
          "stream_options": {"include_usage": true}, "user": null})",
      R"({"prompt": [[1, 2.0], [3]], "max_tokens": 5, "echo": true, "logprobs": 2, "best_of": 1,
          "truncate_prompt_tokens": -1, "response_format": {"type": "text"},
          "min_tokens": 0})",
      R"({"prompt": ["a", "b"], "stream": false, "stop": "x", "priority": 0, "deadline_ms": 1e3})",
      R"({"prompt": "x", "add_special_tokens": true, "return_token_strs": true})",
      R"({"tokens": [1, 2, 3], "model": "m"})",
      R"({"instructions": "i", "input": [{"role": "user", "content": [{"type": "input_text", "text":
          "a"}]}, {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text",
          "text": "b"}]}, {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
          {"type": "function_call_output", "call_id": "c", "output": "d"}], "store": false,
          "tools": [{"type": "function", "name": "f", "parameters": {"x": [1.5, null]}, "strict":
          false}, {"type": "web_search"}], "tool_choice": {"type": "function", "name": "f"},
          "metadata": {"a": "b"}, "reasoning": {"effort": "low"}, "stream": true})",
      R"({"max_tokens": 5, "system": [{"type": "text", "text": "s", "cache_control": {}}],
          "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type":
          "thinking", "thinking": "t", "signature": "s"}, {"type": "tool_use", "id": "i", "name":
          "f", "input": {"x": "\u0000"}}]}, {"role": "user", "content": [{"type": "tool_result",
          "tool_use_id": "i", "is_error": true, "content": [{"type": "text", "text": "e"}]}]}],
          "tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type":
          "any"}, "thinking": {"type": "enabled", "budget_tokens": 7}, "stop_sequences": ["x"]})",
  };
}
