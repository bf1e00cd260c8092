// cli/serve/edge.h: runs HAProxy in front of a router, with the configuration of
// deploy/haproxy.cfg, which is built into the program. Thread: the calling one.
#pragma once

#include <cstdint>
#include <string>

#include "common/listener.h"
#include "common/status.h"

namespace fathom::client {

// The path of the installed HAProxy. NOT_FOUND says how to install it.
absl::StatusOr<std::string> FindHaproxy();

// Replaces this process by HAProxy, which accepts connections at `listener` and passes calls to
// `router` (host:port). Returns only on an error.
absl::Status ExecHaproxy(const std::string& program, const Listener& listener,
                         const std::string& router);

}  // namespace fathom::client
