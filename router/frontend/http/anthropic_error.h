// router/frontend/http/anthropic_error.h: converts a Status to Anthropic's error object, with the
// reasons of common/reason.h as http_error.h has them. Pure.
#pragma once

#include <string>

#include "common/status.h"
#include "http/message.h"
#include "router/frontend/http/http_error.h"

namespace fathom::router {

// {"type":"error","error":{"type":...,"message":...,"code":...,"param":...}}; `code` and `param`
// are those of OpenAI's object. REQUIRES of both: !status.ok().
std::string AnthropicErrorObject(const absl::Status& status, const FieldNames& names);
http::Response AnthropicErrorAnswer(const absl::Status& status, const FieldNames& names);

// INVALID_ARGUMENT: the header anthropic-version names another form than this server's. Absent, it
// means this server's.
absl::Status CheckAnthropicVersion(const http::Request& request);

}  // namespace fathom::router
