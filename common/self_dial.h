// common/self_dial.h: dials this process' own ports now and then, each time on a new connection. A
// port that takes connections and never says a word, or takes none, is deaf, whatever the health
// service says on old connections; a process with a deaf port is of no use and ends, so that its
// supervisor starts it again. A connection that is closed at once is an answer: the process is full
// and says so. Thread: one of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace fathom {

struct OwnPort {
  enum class Speaks { kHttp1, kHttp2 };
  std::string flag;  // Named in the log, e.g. "--grpc-port".
  std::string host;  // As it listens.
  int32_t port = 0;
  Speaks speaks = Speaks::kHttp2;
};

// Whether something comes back on a new connection within timeout_ms: a byte, or its end. True too
// when no connection can be tried, for want of descriptors or of local ports.
bool Answers(const OwnPort& port, int timeout_ms);

struct SelfDialOptions {
  int interval_ms = 10'000;
  int timeout_ms = 5'000;
  int failures_max = 3;  // In a row.
};

class SelfDial {
 public:
  // `deaf` is called once at most, on the dialling thread, with what is to be logged. Without it
  // the process ends with exit 70.
  explicit SelfDial(std::vector<OwnPort> ports, const SelfDialOptions& options = {},
                    std::function<void(const std::string&)> deaf = {});
  ~SelfDial();

  // The last dial of each port was answered.
  bool hears() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
