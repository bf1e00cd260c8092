// common/http_post.h: one HTTP/1.1 POST on a new connection, with a limit on its whole time.
// Thread: any; the call blocks its thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/status.h"

namespace fathom {

struct HttpUrl {
  std::string host;  // Without brackets.
  int32_t port = 0;
  std::string target;  // "/v1/traces"; with a query, if there is one.
};

// "http://HOST[:PORT][/PATH]". INVALID_ARGUMENT says what is wrong; https is not supported.
absl::StatusOr<HttpUrl> ParseHttpUrl(std::string_view url);

// The status of the answer. UNAVAILABLE: there was no answer; DEADLINE_EXCEEDED: none in time.
absl::StatusOr<int> HttpPost(const HttpUrl& url, const std::string& content_type, std::string body,
                             int64_t timeout_ms);

}  // namespace fathom
