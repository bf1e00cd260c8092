// router/frontend/http/responses_request.h: reads the bodies of OpenAI's /v1/responses, as Codex
// and OpenAI's packages send them, into requests of the API (router/api/requests.h). The server
// keeps no responses: a body has the whole conversation in `input`. Every known field is honoured
// or refused by name, and an unknown one is refused (docs/API.md, "HTTP: responses"). Tools of a
// type that this server does not run are left out, as clients offer them to every server. Pure.
#pragma once

#include "common/json.h"
#include "common/status.h"
#include "router/frontend/http/answer_form.h"

namespace fathom::router {

absl::StatusOr<FormRequest> ReadResponses(const JsonValue& body);

}  // namespace fathom::router
