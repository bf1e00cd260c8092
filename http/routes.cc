#include "http/routes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <ranges>
#include <utility>
#include <vector>

#include "common/check.h"

namespace fathom::http {
namespace {

std::vector<std::string> KeysOf(const auto& map) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : map) keys.push_back(key);
  return keys;
}

}  // namespace

Response ErrorResponse(int status, const std::string& code, const std::string& message) {
  const bool of_client = status < 500;
  const nlohmann::json error = {{"message", message},
                                {"type", of_client ? "invalid_request_error" : "server_error"},
                                {"param", nullptr},
                                {"code", code}};
  // Bytes of a client that are no UTF-8 are replaced.
  return {status,
          "application/json",
          nlohmann::json{{"error", error}}.dump(-1, ' ', false,
                                                nlohmann::json::error_handler_t::replace) +
              "\n",
          {}};
}

void Routes::Add(const std::string& method, const std::string& path, Handler handler) {
  const bool added = paths_[path].emplace(method, std::move(handler)).second;
  FATHOM_CHECK(added, "route {} {} is registered twice", method, path);
}

Response Routes::Answer(const Request& request) const {
  const auto path = paths_.find(request.path);
  if (path == paths_.end()) {
    return ErrorResponse(404, "not_found",
                         fmt::format("{} does not exist here; this port has {}",
                                     request.path.substr(0, 256), fmt::join(KeysOf(paths_), ", ")));
  }
  const auto handler = path->second.find(request.method == "HEAD" ? "GET" : request.method);
  if (handler != path->second.end()) return handler->second(request);
  const std::string allowed = fmt::format("{}", fmt::join(KeysOf(path->second), ", "));
  Response refused = ErrorResponse(405, "method_not_allowed",
                                   fmt::format("{} is answered to {}, not to {}", request.path,
                                               allowed, request.method.substr(0, 32)));
  refused.headers.emplace_back("Allow", allowed);
  return refused;
}

}  // namespace fathom::http
