#include "router/frontend/http/anthropic_error.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "common/reason.h"
#include "common/utf8.h"
#include "router/frontend/http/json_writer.h"

namespace fathom::router {
namespace {

// The later version removes sampling parameters and refuses some requests that the earlier one
// took; the form of what both take is the same. This server takes the parameters with both.
constexpr std::string_view kVersions[] = {"2023-06-01", "2026-10-21"};

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
  const bool known = std::ranges::find(kVersions, version) != std::end(kVersions);
  if (version.empty() || known) return absl::OkStatus();
  return WithReason(
      Invalid("the header anthropic-version is \"{}\"; this server speaks {}; send one of them",
              Shortened(ToUtf8(version), 64), fmt::join(kVersions, " and ")),
      Reason::kOutOfRange, "anthropic-version");
}

}  // namespace fathom::router
