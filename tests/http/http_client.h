// tests/http/http_client.h: a server on a free port, and what it answers to bytes.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "common/listener.h"
#include "common/status.h"
#include "tests/common/tcp.h"

namespace fathom::http {

inline Listener Listen(const char* host = "127.0.0.1") {
  auto listener = Listener::Bind(host, 0, "--http-port");
  EXPECT_TRUE(listener.ok()) << ToString(listener.status());
  return *std::move(listener);
}

// What the server sends until it closes the connection.
inline std::string Ask(int port, const std::string& bytes, const std::string& host = "127.0.0.1") {
  TcpClient client(host, port);
  client.Write(bytes);
  return client.ReadUntil("no such text");
}

inline std::string Get(int port, const std::string& target, const std::string& host = "127.0.0.1") {
  return Ask(port, "GET " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", host);
}

inline bool IsStatus(const std::string& answer, int status) {
  return answer.starts_with("HTTP/1.1 " + std::to_string(status) + " ");
}

}  // namespace fathom::http
