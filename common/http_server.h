// common/http_server.h: a small HTTP/1.1 server for GET: /metrics and /livez of every process. One
// thread of its own serves all connections. A connection that is silent or does not read delays no
// other connection and is closed after `timeout_ms`. Beyond `connections_max` the oldest connection
// is closed. The handler runs on the server's thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/listener.h"

namespace fathom {

struct HttpAnswer {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

struct HttpLimits {
  int timeout_ms = 5'000;  // For receiving a whole request, and for sending its answer.
  size_t connections_max = 64;
  size_t header_bytes_max = 16 << 10;
};

class HttpServer {
 public:
  // Maps the path of a GET (without its query) to the answer.
  using Handler = std::function<HttpAnswer(std::string_view path)>;

  HttpServer(Listener listener, Handler handler, const HttpLimits& limits = {});
  ~HttpServer();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
