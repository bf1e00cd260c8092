#include "router/frontend/http/anthropic_error.h"

#include "common/reason.h"
#include "common/utf8.h"
#include "router/frontend/http/json_writer.h"

namespace fathom::router {
namespace {

constexpr std::string_view kVersion = "2023-06-01";

std::string_view AnthropicType(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    case 504:
      return "timeout_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

}  // namespace

std::string AnthropicErrorObject(const absl::Status& status, const FieldNames& names) {
  const ErrorParts parts = PartsOf(status, names);
  JsonWriter json;
  json.BeginObject().Key("type").String("error").Key("error").BeginObject();
  json.Key("type").String(AnthropicType(parts.status));
  json.Key("message").String(parts.message).Key("code").String(parts.code).Key("param");
  parts.param.empty() ? json.Null() : json.String(parts.param);
  json.EndObject().EndObject();
  return json.Take();
}

http::Response AnthropicErrorAnswer(const absl::Status& status, const FieldNames& names) {
  http::Response answer{
      HttpStatusOf(status), "application/json", AnthropicErrorObject(status, names) + "\n", {}};
  AddRetryHeaders(status, &answer);
  return answer;
}

absl::Status CheckAnthropicVersion(const http::Request& request) {
  const std::string_view version = request.Header("anthropic-version");
  if (version.empty() || version == kVersion) return absl::OkStatus();
  return WithReason(
      Invalid("the header anthropic-version is \"{}\"; this server speaks only {}; send that",
              Shortened(ToUtf8(version), 64), kVersion),
      Reason::kOutOfRange, "anthropic-version");
}

}  // namespace fathom::router
