// router/frontend/http/answer_form.h: what distinguishes the HTTP APIs that generate: how a body is
// read, and in which form the answer and its errors are written. All else is common to them
// (http_answer.h). Plain data.
#pragma once

#include <functional>
#include <memory>

#include "common/json.h"
#include "common/status.h"
#include "http/message.h"
#include "router/frontend/http/answer_writer.h"
#include "router/frontend/http/http_error.h"
#include "router/frontend/http/openai_answer.h"
#include "router/frontend/http/openai_request.h"

namespace fathom::router {

using ErrorAnswerFn = http::Response (*)(const absl::Status& status, const FieldNames& names);

struct AnswerForm {
  FieldNames names = {};  // For errors that come after the body was read.
  ErrorAnswerFn error = ErrorAnswer;
  std::function<std::unique_ptr<AnswerWriter>(AnswerParts parts)> writer = {};
  // The header of an answer that has the request's id, besides X-Request-Id; empty: none.
  std::string id_header = {};
  // A stream has the lines "id:" and can be taken up again by Last-Event-ID.
  bool can_resume = false;
};

// A body that was read.
struct FormRequest {
  OpenAiRequest request;  // One prompt and one choice, except for OpenAI's older APIs.
  AnswerForm form;
};

using ReadFormFn = absl::StatusOr<FormRequest> (*)(const JsonValue& body);

// The form of chat completions and completions.
AnswerForm OpenAiForm(const OpenAiRequest& request);

}  // namespace fathom::router
