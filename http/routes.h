// http/routes.h: which handler answers a path. Register all routes before the server starts;
// afterwards any thread may read.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "http/exchange.h"
#include "http/message.h"

namespace fathom::http {

// Runs on the server's thread and must not wait for anything: all connections wait for it.
using Handler = std::function<Response(const Request&)>;

// One of the two handlers is set.
struct Route {
  std::string name;  // As it was registered: "POST /v1/completions", "GET /v1/models/".
  Handler answer;
  ExchangeHandler begin;
  size_t body_bytes_max = 0;  // 0: a request with a body is refused.
};

// Decides whether a request reaches its route, before its body is read. It sets Request::tenant, or
// returns the refusal. `route`: Route::name; empty: the request has no route. Runs on the server's
// thread and must not wait.
using Guard = std::function<std::optional<Response>(Request* request, std::string_view route)>;

class Routes {
 public:
  // REQUIRES of all three: (method, path) is not registered yet.
  void Add(const std::string& method, const std::string& path, Handler handler);
  // All paths that begin with `prefix`, which ends with "/", and go on. An exact path goes first.
  void AddUnder(const std::string& method, const std::string& prefix, Handler handler);
  void AddExchange(const std::string& method, const std::string& path, size_t body_bytes_max,
                   ExchangeHandler handler);

  // The route; or the answer 404 with the paths that exist, or 405 with the methods of the path.
  std::variant<const Route*, Response> Find(const std::string& method,
                                            const std::string& path) const;
  // The answer of a route that answers at once, or that of Find. REQUIRES: the path has no
  // exchange.
  Response Answer(const Request& request) const;
  // Of all routes.
  std::vector<std::string> Names() const;

 private:
  using Methods = std::map<std::string, Route>;

  void AddRoute(const std::string& method, const std::string& path, Route route);
  const Methods* MethodsOf(const std::string& path) const;

  std::map<std::string, Methods, std::less<>> paths_;
  std::vector<std::string> prefixes_;  // Keys of paths_ that stand for all paths below them.
};

}  // namespace fathom::http
