// cli/http_get.h: one GET of a process' HTTP port (/metrics, /version, /health), without a proxy.
// Thread: any; the call blocks for at most its time-out, and for the resolver.
#pragma once

#include <string>

#include "common/status.h"

namespace fathom::client {

struct HttpReply {
  int status = 0;  // 200, 404, ...
  std::string body;
};

inline constexpr size_t kHttpBytesMax = size_t{8} << 20;

// `address` is host:port, `path` begins with '/'. UNAVAILABLE: nothing answered in time, or not
// with HTTP; the message names the address. A body of more than kHttpBytesMax is an error too.
absl::StatusOr<HttpReply> HttpGet(const std::string& address, const std::string& path,
                                  int timeout_ms);

}  // namespace fathom::client
