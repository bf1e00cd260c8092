// tests/router/fake_link.h: an in-process scheduler link: it remembers what was sent, and the test
// uses it to play the scheduler. Thread: any; a mutex guards what it remembers.
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
  bool SendSubmit(StreamId stream, const Submit& submit) override {
    std::lock_guard lock(mutex_);
    if (stream != current_ || room_ == 0) return false;
    if (room_ > 0) --room_;
    submits_.push_back(submit);
    changed_.notify_all();
    return true;
  }
  void SendSuspend(StreamId, const Suspend& suspend) override {
    std::lock_guard lock(mutex_);
    suspends_.push_back(suspend.attempt);
    changed_.notify_all();
  }
  void SendClose(StreamId, const Close& close) override {
    std::lock_guard lock(mutex_);
    closes_.push_back(close);
  }
  bool SendExplain(StreamId stream, const ExplainAsk& ask) override {
    std::lock_guard lock(mutex_);
    if (stream != current_) return false;
    explains_.push_back(ask);
    return true;
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
  // The number of Submits that are accepted before the outbox is full; below 0: all.
  void set_room(int room) {
    std::lock_guard lock(mutex_);
    room_ = room;
  }
  std::vector<Submit> TakeSubmits() {
    std::lock_guard lock(mutex_);
    return std::exchange(submits_, {});
  }
  // Waits until something was submitted; empty only if nothing came for a minute.
  std::vector<Submit> WaitForSubmits() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::minutes(1), [this] { return !submits_.empty(); });
    return std::exchange(submits_, {});
  }
  // The same for `count` Suspends since the start.
  std::vector<AttemptId> WaitForSuspends(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::minutes(1), [&] { return suspends_.size() >= count; });
    return suspends_;
  }
  std::vector<AttemptId> suspends() const {
    std::lock_guard lock(mutex_);
    return suspends_;
  }
  std::vector<Close> closes() const {
    std::lock_guard lock(mutex_);
    return closes_;
  }
  std::vector<ExplainAsk> TakeExplains() {
    std::lock_guard lock(mutex_);
    return std::exchange(explains_, {});
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
  std::vector<Submit> submits_;
  std::vector<AttemptId> suspends_;
  std::vector<Close> closes_;
  std::vector<ExplainAsk> explains_;
  std::vector<StreamId> resets_;
};

}  // namespace fathom::router
