// common/inbox.h: the way into a thread that owns state: a bounded many-to-one queue.
// Thread: TryPush and Close from any thread; Pop and PopFor from the one owner.
// Invariant: at most `capacity` elements wait; a full inbox says so at once and never blocks a
// sender.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "common/check.h"

namespace fathom {

template <class T>
class Inbox {
 public:
  // REQUIRES: capacity > 0.
  explicit Inbox(size_t capacity) : capacity_(capacity) { FATHOM_CHECK(capacity > 0); }

  // False when full or closed; `item` is untouched then.
  [[nodiscard]] bool TryPush(T&& item) {
    {
      std::lock_guard lock(mutex_);
      if (closed_ || items_.size() >= capacity_) return false;
      items_.push_back(std::move(item));
    }
    ready_.notify_one();
    return true;
  }

  // The oldest element; waits for one. nullopt: closed and empty.
  std::optional<T> Pop() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return closed_ || !items_.empty(); });
    return TakeLocked();
  }

  // As Pop, but also nullopt when `timeout` passes first.
  std::optional<T> PopFor(std::chrono::microseconds timeout) {
    std::unique_lock lock(mutex_);
    ready_.wait_for(lock, timeout, [this] { return closed_ || !items_.empty(); });
    return TakeLocked();
  }

  // Wakes the owner; what waits may still be popped, nothing more gets in.
  void Close() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    ready_.notify_all();
  }

  bool closed() const {
    std::lock_guard lock(mutex_);
    return closed_;
  }
  size_t size() const {
    std::lock_guard lock(mutex_);
    return items_.size();
  }

 private:
  std::optional<T> TakeLocked() {
    if (items_.empty()) return std::nullopt;
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    return item;
  }

  const size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<T> items_;  // Guarded by mutex_, as is closed_.
  bool closed_ = false;
};

}  // namespace fathom
