// router/frontend/http/openai_request.h: reads the bodies of OpenAI's endpoints, with the fields
// that OpenAI documents and those that vLLM adds, into requests of the API (router/api/requests.h).
// Every known field is honoured or refused by name; an unknown one is refused (docs/API.md, "HTTP:
// fields"). What a field may have as its value is checked by admission, not here. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/status.h"
#include "router/api/requests.h"

namespace fathom::router {

// The most sequences of one body: prompts times n.
inline constexpr int32_t kChoicesMax = 128;

// How the answer is written; it decides no token.
struct AnswerOptions {
  bool chat = false;
  bool stream = false;
  bool include_usage = false;     // A chunk with the usage at the end of a stream.
  bool continuous_usage = false;  // The usage so far in every chunk.
  bool include_reasoning = true;
  bool echo = false;                 // The prompt before the text of each choice.
  bool logprobs = false;             // Of the tokens of the answer, in OpenAI's form.
  bool prompt_logprobs = false;      // In vLLM's form.
  bool return_token_ids = false;     // The ids of prompt and answer.
  bool tokens_as_token_ids = false;  // "token_id:5" in the place of a token's text.
  bool skip_special = true;
  bool timings = false;
  int32_t n = 1;                               // Choices of each prompt.
  std::string max_tokens_name = "max_tokens";  // As the request named it, for errors.
  bool wants_prompt_logprobs() const { return prompt_logprobs || (echo && logprobs); }
  bool needs_prompt_ids() const { return return_token_ids || echo || prompt_logprobs; }
};

struct OpenAiRequest {
  PublicRequest params;         // Of every prompt.
  std::vector<Prompt> prompts;  // At least one; a chat has one.
  bool prompt_list = false;     // `prompt` was a list of prompts.
  std::optional<int32_t> truncate_prompt_tokens;
  AnswerOptions answer;
};

// The error of a body that is not JSON names the byte, and the limit that it exceeds.
absl::StatusOr<JsonValue> ParseBody(const std::string& body);

absl::StatusOr<OpenAiRequest> ReadChatCompletion(const JsonValue& body);
absl::StatusOr<OpenAiRequest> ReadCompletion(const JsonValue& body);

// vLLM's /tokenize and /detokenize. `model`: the name in the body.
struct HttpTokenizeRequest {
  TokenizeRequest request;
  std::string model;
  bool return_token_strs = false;
};
absl::StatusOr<HttpTokenizeRequest> ReadTokenize(const JsonValue& body);
struct HttpDetokenizeRequest {
  DetokenizeRequest request;
  std::string model;
};
absl::StatusOr<HttpDetokenizeRequest> ReadDetokenize(const JsonValue& body);

}  // namespace fathom::router
