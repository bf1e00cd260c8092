// tests/router/fake_link.h: an in-process scheduler link: remembers what was sent, and lets the
// test speak as the scheduler. Thread: any; what it remembers is behind a mutex.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "router/sessions/scheduler_link.h"

namespace fathom::router {

class FakeLink final : public SchedulerLink {
 public:
  struct Cut {
    SessionKey key;
    int32_t sequence;
    int32_t length;
  };

  bool Submit(StreamId stream, const SubmitUp& submit) override {
    std::lock_guard lock(mutex_);
    if (stream != current_ || room_ == 0) return false;
    if (room_ > 0) --room_;
    submits_.push_back(submit);
    changed_.notify_all();
    return true;
  }
  void Suspend(StreamId, AttemptId attempt, const SessionKey&) override {
    std::lock_guard lock(mutex_);
    suspends_.push_back(attempt);
    changed_.notify_all();
  }
  void Close(StreamId, const SessionKey& key, int32_t sequence, int32_t length,
             FinishReason) override {
    std::lock_guard lock(mutex_);
    cuts_.push_back({key, sequence, length});
  }
  void Reset(StreamId stream) override {
    std::lock_guard lock(mutex_);
    resets_.push_back(stream);
    current_ = {};
  }

  void set_current(StreamId stream) {
    std::lock_guard lock(mutex_);
    current_ = stream;
  }
  // Submits taken before the outbox is full; below 0: all.
  void set_room(int room) {
    std::lock_guard lock(mutex_);
    room_ = room;
  }
  std::vector<SubmitUp> TakeSubmits() {
    std::lock_guard lock(mutex_);
    return std::exchange(submits_, {});
  }
  // Waits until something was submitted; empty only when nothing was for a minute.
  std::vector<SubmitUp> WaitForSubmits() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::minutes(1), [this] { return !submits_.empty(); });
    return std::exchange(submits_, {});
  }
  // Likewise, for `count` Suspends since the start.
  std::vector<AttemptId> WaitForSuspends(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::minutes(1), [&] { return suspends_.size() >= count; });
    return suspends_;
  }
  std::vector<AttemptId> suspends() const {
    std::lock_guard lock(mutex_);
    return suspends_;
  }
  std::vector<Cut> cuts() const {
    std::lock_guard lock(mutex_);
    return cuts_;
  }
  std::vector<StreamId> resets() const {
    std::lock_guard lock(mutex_);
    return resets_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  StreamId current_;
  int room_ = -1;
  std::vector<SubmitUp> submits_;
  std::vector<AttemptId> suspends_;
  std::vector<Cut> cuts_;
  std::vector<StreamId> resets_;
};

}  // namespace fathom::router
