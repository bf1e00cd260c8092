#include "http/routes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
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

std::string_view Request::Header(std::string_view name) const {
  for (auto header = headers.rbegin(); header != headers.rend(); ++header) {
    if (header->first == name) return header->second;
  }
  return {};
}

void Routes::AddRoute(const std::string& method, const std::string& path, Route route) {
  route.name = method + " " + path;
  const bool added = paths_[path].emplace(method, std::move(route)).second;
  FATHOM_CHECK(added, "route {} {} is registered twice", method, path);
}

void Routes::Add(const std::string& method, const std::string& path, Handler handler) {
  AddRoute(method, path, {.name = {}, .answer = std::move(handler), .begin = {}});
}

void Routes::AddUnder(const std::string& method, const std::string& prefix, Handler handler) {
  FATHOM_CHECK(prefix.ends_with('/'));
  prefixes_.push_back(prefix);
  Add(method, prefix, std::move(handler));
}

void Routes::AddExchange(const std::string& method, const std::string& path, size_t body_bytes_max,
                         ExchangeHandler handler) {
  AddRoute(
      method, path,
      {.name = {}, .answer = {}, .begin = std::move(handler), .body_bytes_max = body_bytes_max});
}

const Routes::Methods* Routes::MethodsOf(const std::string& path) const {
  const auto exact = paths_.find(path);
  const bool is_prefix = std::ranges::find(prefixes_, path) != prefixes_.end();
  if (exact != paths_.end() && !is_prefix) return &exact->second;
  for (const std::string& prefix : prefixes_) {
    if (path.size() > prefix.size() && path.starts_with(prefix)) return &paths_.at(prefix);
  }
  return nullptr;
}

std::variant<const Route*, Response> Routes::Find(const std::string& method,
                                                  const std::string& path) const {
  const Methods* methods = MethodsOf(path);
  if (methods == nullptr) {
    return ErrorResponse(404, "not_found",
                         fmt::format("{} does not exist here; this port has {}",
                                     path.substr(0, 256), fmt::join(KeysOf(paths_), ", ")));
  }
  const auto route = methods->find(method == "HEAD" ? "GET" : method);
  if (route != methods->end()) return &route->second;
  const std::string allowed = fmt::format("{}", fmt::join(KeysOf(*methods), ", "));
  Response refused = ErrorResponse(
      405, "method_not_allowed",
      fmt::format("{} is answered to {}, not to {}", path, allowed, method.substr(0, 32)));
  refused.headers.emplace_back("Allow", allowed);
  return refused;
}

std::vector<std::string> Routes::Names() const {
  std::vector<std::string> names;
  for (const auto& [path, methods] : paths_) {
    for (const auto& [method, route] : methods) names.push_back(route.name);
  }
  return names;
}

Response Routes::Answer(const Request& request) const {
  std::variant<const Route*, Response> found = Find(request.method, request.path);
  if (auto* refused = std::get_if<Response>(&found)) return std::move(*refused);
  return std::get<const Route*>(found)->answer(request);
}

}  // namespace fathom::http
