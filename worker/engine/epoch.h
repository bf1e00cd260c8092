// worker/engine/epoch.h: one life of a group as one of its ranks sees it: who takes part, what the
// ranks tell each other while they connect, and the one way to end it. Thread: made and aborted by
// a Control thread, run by the engine thread; every method from any thread. Invariant: once
// aborted() is true it stays so, and each OnAbort callback has run or runs at once; a result is
// written only if aborted() was false after the step's last op.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "cluster/control_messages.h"
#include "common/status.h"

namespace fathom::worker {

class Epoch {
 public:
  // `source`: index of the scheduler that gave the seat.
  Epoch(GroupSeat seat, int source) : seat_(std::move(seat)), source_(source) {}
  Epoch(const Epoch&) = delete;
  Epoch& operator=(const Epoch&) = delete;

  const GroupSeat& seat() const { return seat_; }
  int source() const { return source_; }

  // Ends the epoch; the first reason stays.
  void Abort(const absl::Status& reason);
  bool aborted() const { return aborted_.load(std::memory_order_acquire); }
  // OK while the epoch lives, else why it ended.
  absl::Status status() const;

  // `callback` runs once, when the epoch is aborted (at once if it is), in the aborting thread and
  // under a lock: it must be short and must not call this Epoch. Returns a number for Forget.
  int OnAbort(std::function<void()> callback);
  // The callback will not run any more when this returns.
  void Forget(int callback);

  // GroupExchange from a peer. At most kExchangesMax wait; more is a protocol error and aborts the
  // epoch.
  struct Exchange {
    int32_t round = 0;
    int32_t rank = 0;
    std::string bytes;
  };
  static constexpr size_t kExchangesMax = 256;
  void PushExchange(Exchange exchange);
  // Waits for rank `rank`'s bytes of `round`. ABORTED: the epoch ended. DEADLINE_EXCEEDED: they did
  // not come.
  absl::StatusOr<std::string> WaitExchange(int32_t round, int32_t rank,
                                           std::chrono::milliseconds timeout);

 private:
  const GroupSeat seat_;
  const int source_;
  std::atomic<bool> aborted_{false};
  mutable std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  absl::Status reason_;
  std::vector<std::pair<int, std::function<void()>>> callbacks_;
  int next_callback_ = 0;
  std::deque<Exchange> exchanges_;
};

}  // namespace fathom::worker
