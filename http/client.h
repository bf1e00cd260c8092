// http/client.h: one HTTP/1.1 request on a new connection, with a limit on its whole time and on
// its answer. No proxy. Every address of a host is tried.
// Thread: any; a call blocks its thread for at most its time-out, and for the resolver.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "common/status.h"

namespace fathom::http {

struct Url {
  std::string host;  // Without brackets.
  int32_t port = 0;
  std::string target;  // "/v1/traces"; with a query, if there is one.
};

struct Reply {
  int status = 0;  // 200, 404, ...
  std::string body;
};

struct CallLimits {
  int64_t timeout_ms = 5000;
  size_t body_bytes_max = 64 << 10;  // A longer answer is an error.
  // Asked about 20 times a second; true ends the call. May be empty.
  std::function<bool()> stopped;
  std::string api_key;  // Sent as "Authorization: Bearer"; empty: none.
  bool tls = false;
  // Roots (PEM) of the server's certificate; empty: those of the system.
  std::string tls_ca;
};

// "http://HOST[:PORT][/PATH]". INVALID_ARGUMENT says what is wrong; https is not supported.
absl::StatusOr<Url> ParseUrl(std::string_view url);

// UNAVAILABLE: there was no answer, or no HTTP; DEADLINE_EXCEEDED: none in time; ABORTED: stopped.
// The message names the address.
absl::StatusOr<Reply> Get(const Url& url, const CallLimits& limits);
// The same of a path, e.g. "/metrics", at "HOST:PORT"; INVALID_ARGUMENT: that is none.
absl::StatusOr<Reply> GetAt(std::string_view address, std::string_view path,
                            const CallLimits& limits);
absl::StatusOr<Reply> Post(const Url& url, const std::string& content_type, std::string body,
                           const CallLimits& limits);

}  // namespace fathom::http
