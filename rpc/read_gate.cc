#include "rpc/read_gate.h"

#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace fathom::rpc {
namespace {

using std::chrono::steady_clock;

// The number of a socket in the kernel, which no other socket has while this one is open.
ino_t SocketOf(int fd) {
  struct stat facts {};
  return fstat(fd, &facts) == 0 ? facts.st_ino : 0;
}

// The gates by descriptor, in several parts so that connections do not wait for one another.
class Gates {
 public:
  void Set(int fd, std::shared_ptr<ReadGate> gate) {
    const Entry entry{std::move(gate), SocketOf(fd)};
    Part& part = PartOf(fd);
    std::lock_guard lock(part.mutex);
    part.gates[fd] = entry;
    any_ = true;
  }

  void Remove(int fd, const ReadGate* gate) {
    Part& part = PartOf(fd);
    std::lock_guard lock(part.mutex);
    const auto it = part.gates.find(fd);
    if (it != part.gates.end() && it->second.gate.get() == gate) part.gates.erase(it);
  }

  // False: the bytes are a flood.
  bool Admit(int fd, const msghdr& message, size_t size) {
    if (!any_.load(std::memory_order_relaxed)) return true;
    const Entry entry = Find(fd);
    if (entry.gate == nullptr) return true;
    for (size_t i = 0; i < message.msg_iovlen && size > 0; ++i) {
      const size_t part = std::min(size, message.msg_iov[i].iov_len);
      const auto* bytes = static_cast<const std::byte*>(message.msg_iov[i].iov_base);
      if (!entry.gate->Admit({bytes, part})) return !IsStill(fd, entry);
      size -= part;
    }
    return true;
  }

 private:
  struct Entry {
    std::shared_ptr<ReadGate> gate;
    ino_t socket = 0;
  };
  struct Part {
    std::mutex mutex;
    std::unordered_map<int, Entry> gates;
  };

  Part& PartOf(int fd) { return parts_[static_cast<size_t>(fd) % parts_.size()]; }

  Entry Find(int fd) {
    Part& part = PartOf(fd);
    std::lock_guard lock(part.mutex);
    const auto it = part.gates.find(fd);
    return it == part.gates.end() ? Entry() : it->second;
  }

  // The descriptor may have been closed and opened again for something else.
  bool IsStill(int fd, const Entry& entry) {
    if (SocketOf(fd) == entry.socket) return true;
    Remove(fd, entry.gate.get());
    return false;
  }

  std::array<Part, 64> parts_;
  std::atomic<bool> any_{false};
};

// It outlives every thread that reads.
Gates& TheGates() {
  static auto* const gates = new Gates;
  return *gates;
}

}  // namespace

double Bucket::Add(double amount, double per_second, steady_clock::time_point now) {
  const double seconds = std::chrono::duration<double>(now - at_).count();
  level_ = std::max(0.0, level_ - per_second * seconds + amount);
  at_ = now;
  return level_;
}

ReadGate::ReadGate(const GateLimits& limits, std::function<void(const char*)> flooded)
    : limits_(limits), flooded_(std::move(flooded)) {}

int64_t ReadGate::unreported() const { return std::max<int64_t>(0, unreported_ - reported_); }

bool ReadGate::Admit(std::span<const std::byte> bytes) {
  if (closed_) return false;
  frames_.Feed(bytes);
  const char* const why = Judge();
  if (why == nullptr) return true;
  closed_ = true;
  flooded_(why);
  return false;
}

const char* ReadGate::Judge() {
  const auto now = steady_clock::now();
  // What gRPC has reported are earlier calls, for it has not yet got those that begin here.
  const auto reported = static_cast<double>(reported_.exchange(0, std::memory_order_relaxed));
  calls_.Add(-reported, limits_.forgiven_per_second, now);
  const int64_t begun = frames_.streams() - std::exchange(streams_seen_, frames_.streams());
  const double unreported = calls_.Add(static_cast<double>(begun), 0, now);
  unreported_.store(static_cast<int64_t>(unreported), std::memory_order_relaxed);
  if (unreported > static_cast<double>(limits_.unreported_max)) {
    return "it begins calls without end";
  }
  if (frames_.unended_header_bytes() > limits_.header_bytes_max) {
    return "it sends a header without end";
  }
  const int64_t controls = frames_.controls() - std::exchange(controls_seen_, frames_.controls());
  if (controls_.Add(static_cast<double>(controls), limits_.controls_per_second, now) >
      limits_.controls_burst) {
    return "it sends settings and pings without end";
  }
  return nullptr;
}

void OpenGate(int fd, std::shared_ptr<ReadGate> gate) { TheGates().Set(fd, std::move(gate)); }
void CloseGate(int fd, const ReadGate* gate) { TheGates().Remove(fd, gate); }

}  // namespace fathom::rpc

// The program's recvmsg, which gRPC's library finds before the C library's (man 8 ld.so).
extern "C" ssize_t recvmsg(int fd, msghdr* message, int flags) {
  using Function = ssize_t (*)(int, msghdr*, int);
  static const auto next = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "recvmsg"));
  const ssize_t got = next(fd, message, flags);
  if (got <= 0 || flags != 0) return got;
  if (fathom::rpc::TheGates().Admit(fd, *message, static_cast<size_t>(got))) return got;
  errno = ECONNRESET;
  return -1;
}
