// tests/common/tcp.h: a TCP client for tests: connects, writes and reads bytes; every wait is
// bounded.
#pragma once

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>

#include "common/address.h"

namespace fathom {

class TcpClient {
 public:
  // `source`: the IPv4 address to come from, where it matters.
  TcpClient(std::string_view host, int port, const char* source = nullptr) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(BareHost(host).c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
      return;
    }
    fd_ = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (source != nullptr) {
      sockaddr_in from{};
      from.sin_family = AF_INET;
      inet_pton(AF_INET, source, &from.sin_addr);
      if (bind(fd_, reinterpret_cast<sockaddr*>(&from), sizeof from) != 0) return;
    }
    connected_ = fd_ >= 0 && connect(fd_, found->ai_addr, found->ai_addrlen) == 0;
    freeaddrinfo(found);
  }
  TcpClient(TcpClient&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), connected_(other.connected_) {}
  TcpClient& operator=(TcpClient&&) = delete;
  ~TcpClient() {
    if (fd_ >= 0) close(fd_);
  }

  bool connected() const { return connected_; }

  // Writes all bytes. Returns false if the peer has closed the connection or does not read for 30
  // s.
  bool Write(std::string_view bytes) {
    while (!bytes.empty()) {
      pollfd wait{fd_, POLLOUT, 0};
      if (poll(&wait, 1, 30'000) <= 0) return false;
      const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  // Reads until the peer closes or the text contains `enough`; at most 30 s.
  std::string ReadUntil(std::string_view enough) {
    std::string all;
    char buffer[4096];
    pollfd wait{fd_, POLLIN, 0};
    while (all.find(enough) == std::string::npos && poll(&wait, 1, 30'000) > 0) {
      const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
      if (n <= 0) break;
      all.append(buffer, static_cast<size_t>(n));
    }
    return all;
  }

  // Waits at most 30 s for the peer to close the connection; returns whether it did.
  bool WaitClosed() {
    char buffer[4096];
    pollfd wait{fd_, POLLIN, 0};
    while (poll(&wait, 1, 30'000) > 0) {
      if (recv(fd_, buffer, sizeof buffer, 0) <= 0) return true;
    }
    return false;
  }

 private:
  int fd_ = -1;
  bool connected_ = false;
};

}  // namespace fathom
