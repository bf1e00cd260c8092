// common/inbox.h: a bounded many-to-one queue: the only way to send work to a thread that owns
// state.
// Thread: any thread may call TryPush and Close; only the owner calls Pop and PopFor.
// Invariant: at most `capacity` elements wait. TryPush on a full inbox returns false and never
// blocks.
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

  // Returns false if the inbox is full or closed; `item` is then unchanged.
  [[nodiscard]] bool TryPush(T&& item) {
    {
      std::lock_guard lock(mutex_);
      if (closed_ || items_.size() >= capacity_) return false;
      items_.push_back(std::move(item));
    }
    ready_.notify_one();
    return true;
  }

  // Waits for the oldest element and returns it. nullopt: closed and empty.
  std::optional<T> Pop() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return closed_ || !items_.empty(); });
    return TakeLocked();
  }

  // Like Pop, but also returns nullopt after `timeout`.
  std::optional<T> PopFor(std::chrono::microseconds timeout) {
    std::unique_lock lock(mutex_);
    ready_.wait_for(lock, timeout, [this] { return closed_ || !items_.empty(); });
    return TakeLocked();
  }

  // Wakes the owner. Waiting elements may still be popped; new ones are refused.
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
  std::deque<T> items_;  // Guarded by mutex_, like closed_.
  bool closed_ = false;
};

}  // namespace fathom
