#include "cli/serve/edge.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "cli/serve/haproxy_cfg.h"

namespace fathom::client {

absl::StatusOr<std::string> FindHaproxy() {
  for (const char* path : {"/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy",
                           "/usr/local/bin/haproxy"}) {
    if (access(path, X_OK) == 0) return std::string(path);
  }
  return NotFound(
      "no haproxy in /usr/sbin, /usr/bin or under /usr/local; install it (apt-get install "
      "haproxy), "
      "or leave out --edge where no untrusted client reaches the port");
}

absl::Status ExecHaproxy(const std::string& program, const Listener& listener,
                         const std::string& router) {
  // HAProxy reads its configuration from a path, so the text is put into a memory file, which ends
  // with HAProxy.
  const int file = memfd_create("haproxy.cfg", 0);
  constexpr std::string_view kText(kHaproxyCfg);
  if (file < 0 || write(file, kText.data(), kText.size()) != static_cast<ssize_t>(kText.size())) {
    return Internal("cannot write HAProxy's configuration: {}", strerror(errno));
  }
  if (fcntl(listener.fd(), F_SETFD, 0) != 0) {
    return Internal("cannot hand the port to HAProxy: {}", strerror(errno));
  }
  const std::string path = fmt::format("/proc/self/fd/{}", file);
  setenv("FATHOM_EDGE_BIND", fmt::format("fd@{}", listener.fd()).c_str(), 1);
  setenv("FATHOM_EDGE_ROUTER", router.c_str(), 1);
  execl(program.c_str(), program.c_str(), "-db", "-f", path.c_str(), nullptr);
  return Internal("cannot run {}: {}", program, strerror(errno));
}

}  // namespace fathom::client
