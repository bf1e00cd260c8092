// router/frontend/http/http_error.h: converts a Status to what HTTP clients get: OpenAI's error
// object, its HTTP status, and Retry-After. The reasons are those of common/reason.h, in lower
// case, as the object's `code`; gRPC's front end sends the same ones (docs/API.md, "Errors"). Pure.
#pragma once

#include <string>
#include <vector>

#include "common/status.h"
#include "http/message.h"

namespace fathom::router {

// How the body of the request named the fields that admission names as in proto/inference.proto.
struct FieldNames {
  std::string max_tokens = "max_tokens";
  std::string logprobs = "logprobs";
  std::string prompt = "prompt";  // The prompt of the error, "prompt[3]" in a list.
  std::string stop = "stop";
  std::string thinking_budget = "thinking_token_budget";
  std::string effort = "reasoning_effort";
  // Where each message of the prompt stands in the body, "input[2]"; empty: as "messages[2]".
  std::vector<std::string> messages = {};
};

// What an error object of any API says.
struct ErrorParts {
  int status = 500;  // Of HTTP.
  std::string message;
  std::string param;  // Empty: no field.
  std::string code;   // The reason of common/reason.h in lower case.
};

// 400, 404, 429, ...; 499 for a call that its client left.
int HttpStatusOf(const absl::Status& status);

// REQUIRES of all: !status.ok(). The error object alone is an event of a stream that has failed.
ErrorParts PartsOf(const absl::Status& status, const FieldNames& names);
std::string ErrorObject(const absl::Status& status, const FieldNames& names);
http::Response ErrorAnswer(const absl::Status& status, const FieldNames& names);
// Adds Retry-After and retry-after-ms, if a repetition may help.
void AddRetryHeaders(const absl::Status& status, http::Response* answer);

}  // namespace fathom::router
