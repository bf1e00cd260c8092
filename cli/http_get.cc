#include "cli/http_get.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <memory>

#include "common/address.h"

namespace fathom::client {
namespace {

using Steady = std::chrono::steady_clock;

// A non-blocking socket with a deadline for all of its work.
class TimedSocket {
 public:
  TimedSocket(int family, Steady::time_point deadline)
      : fd_(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)), deadline_(deadline) {}
  ~TimedSocket() {
    if (fd_ >= 0) close(fd_);
  }
  TimedSocket(const TimedSocket&) = delete;
  TimedSocket& operator=(const TimedSocket&) = delete;

  // Each returns false if it failed; errno has the reason.
  bool Connect(const addrinfo& to) {
    if (fd_ < 0) return false;
    if (connect(fd_, to.ai_addr, to.ai_addrlen) == 0) return true;
    if (errno != EINPROGRESS || !Wait(POLLOUT)) return false;
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    errno = error;
    return error == 0;
  }
  bool Send(const std::string& text) {
    for (size_t sent = 0; sent < text.size();) {
      const ssize_t n = send(fd_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (n >= 0) {
        sent += static_cast<size_t>(n);
      } else if (errno != EAGAIN || !Wait(POLLOUT)) {
        return false;
      }
    }
    return true;
  }
  // Up to the end of the stream.
  bool Receive(std::string* text, size_t bytes_max) {
    char buffer[16 << 10];
    while (true) {
      const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
      if (n == 0) return true;
      if (n > 0) {
        text->append(buffer, static_cast<size_t>(n));
        if (text->size() > bytes_max) {
          errno = EMSGSIZE;
          return false;
        }
      } else if (errno != EAGAIN || !Wait(POLLIN)) {
        return false;
      }
    }
  }

 private:
  bool Wait(short events) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Steady::now()).count();
    pollfd one{fd_, events, 0};
    if (poll(&one, 1, static_cast<int>(std::max<int64_t>(left, 0))) > 0) return true;
    errno = ETIMEDOUT;
    return false;
  }

  const int fd_;
  const Steady::time_point deadline_;
};

}  // namespace

absl::StatusOr<HttpReply> HttpGet(const std::string& address, const std::string& path,
                                  int timeout_ms) {
  const auto deadline = Steady::now() + std::chrono::milliseconds(timeout_ms);
  FATHOM_ASSIGN_OR_RETURN(const HostPort place, ParseHostPort(address));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error =
          getaddrinfo(place.host.c_str(), std::to_string(place.port).c_str(), &hints, &found);
      error != 0) {
    return Unavailable("{} cannot be resolved ({})", address, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  TimedSocket connection(found->ai_family, deadline);
  std::string text;
  if (!connection.Connect(*found) ||
      !connection.Send(
          fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", path, address)) ||
      !connection.Receive(&text, kHttpBytesMax)) {
    return Unavailable("{}{} does not answer ({})", address, path, std::strerror(errno));
  }
  // "HTTP/1.1 200 OK", headers, an empty line, the body.
  const size_t space = text.find(' '), body = text.find("\r\n\r\n");
  HttpReply reply;
  if (!text.starts_with("HTTP/1.") || body == std::string::npos || space == std::string::npos ||
      std::from_chars(text.data() + space + 1, text.data() + body, reply.status).ec !=
          std::errc()) {
    return Unavailable("{} does not speak HTTP; give a process' HTTP port", address);
  }
  reply.body = text.substr(body + 4);
  return reply;
}

}  // namespace fathom::client
