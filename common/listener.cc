#include "common/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "common/address.h"

namespace fathom {
namespace {

constexpr int kBacklog = 1024;

absl::Status BindError(int error, const std::string& host, int32_t port, std::string_view flag) {
  const std::string address = FormatHostPort(host, port);
  switch (error) {
    case EADDRINUSE:
      return Unavailable(
          "{} {}: another process listens on {}; give another port, or 0 for any "
          "free one",
          flag, port, address);
    case EADDRNOTAVAIL:
      return Invalid(
          "--host {} is not an address of this machine; 0.0.0.0 is all of IPv4, :: all "
          "of IPv4 and IPv6",
          host);
    case EACCES:
    case EPERM:
      return Invalid("{} {}: this user may not listen on {}; give a port from 1024 on", flag, port,
                     address);
    default:
      return Unavailable("{} {}: cannot listen on {}: {}", flag, port, address, strerror(error));
  }
}

int32_t PortOf(int fd) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0) return 0;
  const in_port_t port = bound.ss_family == AF_INET6
                             ? reinterpret_cast<const sockaddr_in6*>(&bound)->sin6_port
                             : reinterpret_cast<const sockaddr_in*>(&bound)->sin_port;
  return ntohs(port);
}

}  // namespace

absl::StatusOr<Listener> Listener::Bind(const std::string& host, int32_t port,
                                        std::string_view port_flag) {
  const std::string bare = BareHost(host);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(bare.c_str(), std::to_string(port).c_str(), &hints, &found);
      bare.empty() || error != 0) {
    return Invalid("--host '{}' cannot be resolved ({}); give an address of this machine", host,
                   bare.empty() ? "it is empty" : gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return BindError(errno, bare, port, port_flag);
  const int on = 1, off = 0;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const bool is_ipv6 = found->ai_family == AF_INET6;
  if (is_ipv6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, kBacklog) != 0) {
    const int error = errno;
    close(fd);
    return BindError(error, bare, port, port_flag);
  }
  return Listener(fd, PortOf(fd), is_ipv6);
}

Listener::Listener(Listener&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), port_(other.port_), is_ipv6_(other.is_ipv6_) {}

Listener& Listener::operator=(Listener&& other) noexcept {
  std::swap(fd_, other.fd_);
  port_ = other.port_;
  is_ipv6_ = other.is_ipv6_;
  return *this;
}

Listener::~Listener() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace fathom
