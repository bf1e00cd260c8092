// http/routes.h: which handler answers a path. Exact paths only. Register all routes before the
// server starts; afterwards any thread may read.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "http/message.h"

namespace fathom::http {

// Runs on the server's thread and must not wait for anything: all connections wait for it.
using Handler = std::function<Response(const Request&)>;

class Routes {
 public:
  // REQUIRES: (method, path) is not registered yet.
  void Add(const std::string& method, const std::string& path, Handler handler);

  // The handler's answer; 404 with the paths that exist, or 405 with the methods of the path.
  Response Answer(const Request& request) const;

 private:
  std::map<std::string, std::map<std::string, Handler>, std::less<>> paths_;
};

}  // namespace fathom::http
