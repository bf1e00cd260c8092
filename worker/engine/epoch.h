// worker/engine/epoch.h: one life of a group, as one of its ranks sees it: the seat of the rank,
// the messages of the ranks while they connect, and the only way to end the epoch. Thread: a
// Control thread makes and aborts it, the engine thread runs it; any thread may call any method.
// Invariant: once aborted() is true it stays true, and each OnAbort callback has run or runs now. A
// result is written only if aborted() was false after the last op of the step.
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
  // `source`: the index of the scheduler that gave the seat.
  Epoch(GroupSeat seat, int source) : seat_(std::move(seat)), source_(source) {}
  Epoch(const Epoch&) = delete;
  Epoch& operator=(const Epoch&) = delete;

  const GroupSeat& seat() const { return seat_; }
  int source() const { return source_; }

  // Ends the epoch. Only the first reason is kept.
  void Abort(const absl::Status& reason);
  bool aborted() const { return aborted_.load(std::memory_order_acquire); }
  // OK while the epoch lives, else the reason of its end.
  absl::Status status() const;

  // Runs `callback` once when the epoch is aborted, or at once if it already is. It runs in the
  // aborting thread and under a lock, so it must be short and must not call this Epoch. Returns a
  // number for Forget.
  int OnAbort(std::function<void()> callback);
  // After this returned, the callback does not run any more.
  void Forget(int callback);

  // Stores a GroupExchange of a peer. At most kExchangesMax may wait; one more is a protocol error
  // and aborts the epoch.
  struct Exchange {
    int32_t round = 0;
    int32_t rank = 0;
    std::string bytes;
  };
  static constexpr size_t kExchangesMax = 256;
  void PushExchange(Exchange exchange);
  // Waits for the bytes of rank `rank` in round `round`. ABORTED: the epoch ended.
  // DEADLINE_EXCEEDED: the bytes did not arrive in time.
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
