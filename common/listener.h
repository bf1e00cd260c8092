// common/listener.h: a listening TCP port on IPv4 or IPv6. The wildcard "::" accepts both; 0.0.0.0
// accepts only IPv4. Thread: any, one at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/flags.h"
#include "common/status.h"

namespace fathom {

class Listener {
 public:
  // Binds and listens; port 0: any free port. Errors name `port_flag`. UNAVAILABLE: another process
  // has the port. INVALID_ARGUMENT: the host is not an address of this machine or cannot be
  // resolved, or only root may use the port.
  static absl::StatusOr<Listener> Bind(const std::string& host, int32_t port,
                                       std::string_view port_flag);
  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&& other) noexcept;
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener();

  // A non-blocking socket that is closed on exec.
  int fd() const { return fd_; }
  int32_t port() const { return port_; }
  bool is_ipv6() const { return is_ipv6_; }
  // The caller must close fd() from now on.
  void Release() { fd_ = -1; }

 private:
  Listener(int fd, int32_t port, bool is_ipv6) : fd_(fd), port_(port), is_ipv6_(is_ipv6) {}

  int fd_ = -1;
  int32_t port_ = 0;
  bool is_ipv6_ = false;
};

// A program's exit code when Bind fails.
inline int ExitCodeOfBind(const absl::Status& status) {
  return absl::IsInvalidArgument(status) ? kExitUsage : kExitUnavailable;
}

}  // namespace fathom
