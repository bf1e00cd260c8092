// http/message.h: a request and its answer, as handlers see them. Plain data.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fathom::http {

struct Request {
  std::string method;  // "GET"; a HEAD is answered as a GET without its body.
  std::string path;    // Begins with "/"; without the query.
  std::string query;   // What follows the "?".
  std::string peer;    // The address of the client, without its port.
  std::vector<std::pair<std::string, std::string>> headers = {};  // Names in lower case.
  std::string body = {};                                          // Empty on routes that take none.
  std::string tenant = {};  // Whom the guard (routes.h) found; empty: there is no guard.

  // The last header of this name, which is in lower case; empty: none.
  std::string_view Header(std::string_view name) const;
};

struct Response {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // Further ones.
};

// The error object that OpenAI's clients read: {"error":{"message":...,"type":...,"code":...}}.
Response ErrorResponse(int status, const std::string& code, const std::string& message);

}  // namespace fathom::http
