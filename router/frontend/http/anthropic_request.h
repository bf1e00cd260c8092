// router/frontend/http/anthropic_request.h: reads the bodies of Anthropic's /v1/messages and
// /v1/messages/count_tokens, as Claude Code and Anthropic's packages send them, into requests of
// the API (router/api/requests.h). Every known field is honoured or refused by name, and an unknown
// one is refused (docs/API.md, "HTTP: messages"). Pure.
#pragma once

#include <string>

#include "common/json.h"
#include "common/status.h"
#include "router/frontend/http/answer_form.h"

namespace fathom::router {

absl::StatusOr<FormRequest> ReadMessages(const JsonValue& body);

struct CountTokensRequest {
  ChatPrompt chat;
  std::string model;
};
absl::StatusOr<CountTokensRequest> ReadCountTokens(const JsonValue& body);

}  // namespace fathom::router
