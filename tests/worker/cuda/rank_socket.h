// tests/worker/cuda/rank_socket.h: messages over a socket between the processes of the ranks in a
// test or a benchmark: the length in four bytes, then the bytes.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace fathom::worker {

inline constexpr int kRankSocketTimeoutMs = 60'000;
inline constexpr uint32_t kRankMessageBytesMax = 65'536;

inline bool SendBytes(int socket, std::string_view bytes) {
  const auto size = static_cast<uint32_t>(bytes.size());
  std::string all(reinterpret_cast<const char*>(&size), sizeof size);
  all += bytes;
  return send(socket, all.data(), all.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(all.size());
}

// False: the other process has ended, or sent nothing for a minute.
inline bool ReceiveExactly(int socket, char* to, size_t size) {
  while (size > 0) {
    pollfd wait = {socket, POLLIN, 0};
    if (poll(&wait, 1, kRankSocketTimeoutMs) != 1) return false;
    const ssize_t got = recv(socket, to, size, 0);
    if (got <= 0) return false;
    to += got, size -= static_cast<size_t>(got);
  }
  return true;
}

// Empty: as ReceiveExactly, or the message is too long.
inline std::string ReceiveBytes(int socket) {
  uint32_t size = 0;
  std::string bytes;
  if (!ReceiveExactly(socket, reinterpret_cast<char*>(&size), sizeof size)) return bytes;
  if (size > kRankMessageBytesMax) return bytes;
  bytes.resize(size);
  if (!ReceiveExactly(socket, bytes.data(), size)) bytes.clear();
  return bytes;
}

}  // namespace fathom::worker
