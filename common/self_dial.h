// common/self_dial.h: dials this process' own ports regularly, each time on a new connection. A
// port that accepts no connections, or accepts them and sends nothing, is deaf, even if the health
// service still answers on old connections. A process with a deaf port cannot serve, so it ends and
// its supervisor restarts it. A connection that is closed at once counts as an answer: the process
// is full. Thread: one of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace fathom {

struct OwnPort {
  enum class Speaks { kHttp1, kHttp2, kTls };  // kTls: either of them below TLS.
  static Speaks Http1(bool tls) { return tls ? Speaks::kTls : Speaks::kHttp1; }
  static Speaks Http2(bool tls) { return tls ? Speaks::kTls : Speaks::kHttp2; }
  std::string flag;  // Named in the log, e.g. "--grpc-port".
  std::string host;  // The host that it listens on.
  int32_t port = 0;
  Speaks speaks = Speaks::kHttp2;
};

// Whether a new connection gets a byte, or is closed, within timeout_ms. Also true if no connection
// can be tried because descriptors or local ports are short.
bool Answers(const OwnPort& port, int timeout_ms);

struct SelfDialOptions {
  int interval_ms = 10'000;
  int timeout_ms = 5'000;
  int failures_max = 3;  // Consecutive failures.
};

class SelfDial {
 public:
  // `deaf` is called at most once, on the dialling thread, with the text to log. If it is empty,
  // the process ends with exit 70.
  explicit SelfDial(std::vector<OwnPort> ports, const SelfDialOptions& options = {},
                    std::function<void(const std::string&)> deaf = {});
  ~SelfDial();

  // Whether the last dial of each port was answered.
  bool hears() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
