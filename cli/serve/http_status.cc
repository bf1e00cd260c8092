// HttpStatusOf of rank_watch.h, apart from its rules.
#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <memory>

#include "cli/serve/rank_watch.h"
#include "common/address.h"

namespace fathom::client {
namespace {

using Deadline = std::chrono::steady_clock::time_point;

bool WaitForSocket(int fd, short events, Deadline deadline) {
  pollfd wait{fd, events, 0};
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    const int got = poll(&wait, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
    if (got < 0 && errno == EINTR) continue;
    return got > 0;
  }
}

// "HTTP/1.1 503 ...": 503.
int StatusOfLine(std::string_view text) {
  int status = 0;
  const size_t space = text.find(' ');
  if (!text.starts_with("HTTP/") || space == std::string_view::npos) return 0;
  std::from_chars(text.data() + space + 1, text.data() + text.size(), status);
  return status;
}

// `fd` is a non-blocking socket.
int Ask(int fd, const addrinfo& address, const std::string& request, Deadline deadline) {
  if (connect(fd, address.ai_addr, address.ai_addrlen) != 0 && errno != EINPROGRESS) return 0;
  if (!WaitForSocket(fd, POLLOUT, deadline)) return 0;
  if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) < 0) return 0;
  std::string text;
  char buffer[256];
  while (text.size() < sizeof "HTTP/1.1 503" && WaitForSocket(fd, POLLIN, deadline)) {
    const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n <= 0) break;
    text.append(buffer, static_cast<size_t>(n));
  }
  return StatusOfLine(text);
}

}  // namespace

int HttpStatusOf(const std::string& host, int32_t port, const std::string& path, int timeout_ms) {
  const Deadline deadline =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string name = DialHost(host);
  if (getaddrinfo(name.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return 0;
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return 0;
  const int status =
      Ask(fd, *found,
          fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", path, name),
          deadline);
  close(fd);
  return status;
}

}  // namespace fathom::client
