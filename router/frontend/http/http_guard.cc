#include "router/frontend/http/http_guard.h"

#include <chrono>
#include <optional>
#include <utility>

#include "router/frontend/http/http_error.h"
#include "router/frontend/http/json_writer.h"

namespace fathom::router {
namespace {

int64_t GuardNowUnixS() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

// The error object that Anthropic's clients read.
std::string AnthropicError(const absl::Status& status) {
  const bool who = absl::IsUnauthenticated(status);
  JsonWriter json;
  json.BeginObject().Key("type").String("error").Key("error").BeginObject();
  json.Key("type").String(who ? "authentication_error" : "permission_error");
  json.Key("message").String(Message(status)).EndObject().EndObject();
  return json.Take() + "\n";
}

}  // namespace

http::Guard GuardOf(const AccessControl* access) {
  return [access](http::Request* request, std::string_view route) -> std::optional<http::Response> {
    const CallerKey caller{.authorization = request->Header("authorization"),
                           .api_key = request->Header("x-api-key")};
    auto tenant = access->Admit(caller, route, GuardNowUnixS());
    if (tenant.ok()) {
      request->tenant = *std::move(tenant);
      return std::nullopt;
    }
    http::Response refused = ErrorAnswer(tenant.status(), {});
    if (route.starts_with("POST /v1/messages")) refused.body = AnthropicError(tenant.status());
    if (refused.status == 401) refused.headers.emplace_back("WWW-Authenticate", "Bearer");
    return refused;
  };
}

}  // namespace fathom::router
