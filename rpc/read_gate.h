// rpc/read_gate.h: sees the bytes of a client's connection before gRPC parses them, and ends the
// connection if they are a flood. gRPC 1.51 parses 400,000 calls a second, holds 7 KB for each, and
// reports them to the server seconds later, so whoever waits for reports acts too late (docs/
// RELIABILITY.md, "Floods").
//
// gRPC reads with recvmsg(2). read_gate.cc defines this function for the whole program: it calls
// the one of the C library, and shows what was read to the gate of the descriptor, if it has one.
//
// Thread: gRPC reads a connection on one thread at a time, which calls Admit. Any thread may call
// the other functions.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "rpc/frame_counter.h"

namespace fathom::rpc {

// A leaky bucket: the amount that was added minus the amount that flows out over time.
class Bucket {
 public:
  // Returns the present amount.
  double Add(double amount, double per_second, std::chrono::steady_clock::time_point now);

 private:
  double level_ = 0;
  std::chrono::steady_clock::time_point at_ = std::chrono::steady_clock::now();
};

struct GateLimits {
  // Calls that began and that gRPC has not reported. A client that obeys the port's limit of
  // streams has fewer. gRPC never reports a call with a malformed header, so some are forgiven.
  int64_t unreported_max = 1280;
  double forgiven_per_second = 50;
  // Bytes of one header. HPACK makes headers shorter, so none that gRPC accepts is longer.
  int64_t header_bytes_max = 256 << 10;
  // SETTINGS and PING frames, each of which gRPC answers.
  double controls_burst = 10'000;
  double controls_per_second = 1000;
};

class ReadGate {
 public:
  // `flooded` runs at most once, on the thread that reads, with the reason.
  ReadGate(const GateLimits& limits, std::function<void(const char* why)> flooded);

  // The next bytes of the connection. False: they are a flood, and `flooded` was called.
  bool Admit(std::span<const std::byte> bytes);

  // gRPC has reported a call.
  void CallReported() { reported_.fetch_add(1, std::memory_order_relaxed); }
  int64_t unreported() const;

 private:
  const char* Judge();  // Null: no flood.

  const GateLimits limits_;
  const std::function<void(const char*)> flooded_;
  std::atomic<int64_t> reported_{0};  // Not yet taken off unreported_.
  std::atomic<int64_t> unreported_{0};
  // The reading thread:
  FrameCounter frames_;
  int64_t streams_seen_ = 0;
  int64_t controls_seen_ = 0;
  Bucket calls_;
  Bucket controls_;
  bool closed_ = false;
};

// Shows what is read from the descriptor to the gate, until CloseGate or until another gate is set
// for this descriptor.
void OpenGate(int fd, std::shared_ptr<ReadGate> gate);
// Does nothing if the descriptor has another gate by now.
void CloseGate(int fd, const ReadGate* gate);

}  // namespace fathom::rpc
