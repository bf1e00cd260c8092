// router/frontend/http/http_service.h: OpenAI's and Anthropic's APIs over HTTP (docs/API.md,
// "HTTP"):
//   POST /v1/chat/completions, /v1/completions    whole answers and streams
//   POST /v1/responses, /v1/messages              whole answers and streams
//   POST /v1/messages/count_tokens
//   POST /tokenize, /detokenize                   as vLLM has them
//   GET  /v1/models, /v1/models/{id}
//   GET  /, /cluster/status, /cluster/requests    the page (page.h)
// The handlers convert bodies and call InferenceApi (router/api/inference_api.h), which has the
// policy. They run on the HTTP server's thread, or in the API's pool for long bodies.
#pragma once

#include <cstdint>
#include <string_view>

#include "common/status.h"
#include "http/routes.h"
#include "router/api/inference_api.h"
#include "router/frontend/http/http_answer.h"

namespace fathom::router {

// REQUIRES: `api` outlives the server of the routes.
void AddInferenceRoutes(const InferenceApi* api, http::Routes* routes);

// The header Last-Event-ID, "REQUEST_ID:N,N,...", of a request with `choices` choices.
// INVALID_ARGUMENT: it is none.
absl::StatusOr<LastEvent> ParseLastEventId(std::string_view text, int32_t choices);

}  // namespace fathom::router
