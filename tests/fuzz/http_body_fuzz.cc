// Bodies of the HTTP API, for every endpoint. A refusal is a Status whose error object is JSON.
// JSON that is passed on to a chat template is valid, and reading it again gives the same.
#include <nlohmann/json.hpp>

#include "common/check.h"
#include "common/utf8.h"
#include "router/frontend/http/field_reader.h"
#include "router/frontend/http/http_error.h"
#include "router/frontend/http/openai_request.h"
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
  };
}
