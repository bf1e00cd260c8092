// router/frontend/http/http_error.h: converts a Status to what HTTP clients get: OpenAI's error
// object, its HTTP status, and Retry-After. The reasons are those of common/reason.h, in lower
// case, as the object's `code`; gRPC's front end sends the same ones (docs/API.md, "Errors"). Pure.
#pragma once

#include <string>

#include "common/status.h"
#include "http/message.h"

namespace fathom::router {

// How the body of the request named the fields that admission names as in proto/inference.proto.
struct FieldNames {
  std::string max_tokens = "max_tokens";
  std::string logprobs = "logprobs";
  std::string prompt = "prompt";  // The prompt of the error, "prompt[3]" in a list.
};

// 400, 404, 429, ...; 499 for a call that its client left.
int HttpStatusOf(const absl::Status& status);

// REQUIRES of both: !status.ok(). The error object alone is an event of a stream that has failed.
std::string ErrorObject(const absl::Status& status, const FieldNames& names);
http::Response ErrorAnswer(const absl::Status& status, const FieldNames& names);

}  // namespace fathom::router
