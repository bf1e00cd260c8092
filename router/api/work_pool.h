// router/api/work_pool.h: a few threads for work that is too long for a front end's own thread
// (tokenizing a long text). Clients get fair shares of the threads' time (fair_queue.h). Work whose
// client is gone is dropped instead of run. The number of waiting items is bounded: a full pool
// drops work at once. Thread: any thread may call Run. The destructor waits for the work that runs
// and drops the rest.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/cancel.h"
#include "common/clock.h"
#include "common/retry_delay.h"
#include "router/api/fair_queue.h"

namespace fathom::router {

enum class WorkDrop {
  kFull,       // The queue is full, and no client has more waiting than this one.
  kCancelled,  // Its call was cancelled.
  kStopping,   // The pool ends.
};

// Exactly one of `run` and `drop` is called, once: by a thread of the pool, within Run or in the
// pool's destructor.
struct Work {
  std::string client;  // The client for which the time counts (client_address.h).
  CancelFn cancelled;
  std::function<void()> run;
  // `retry_after_ms`: with kFull, the time after which room is expected; else 0.
  std::function<void(WorkDrop, int64_t retry_after_ms)> drop;
};

class WorkPool {
 public:
  // REQUIRES: `clock` outlives the pool.
  WorkPool(int threads, size_t waiting_max, const Clock* clock)
      : clock_(clock), queue_(waiting_max), waiting_max_(waiting_max) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Serve(); });
  }
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;
  ~WorkPool() {
    std::vector<Work> left;
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      left = queue_.TakeIf([](const Work&) { return true; });
    }
    ready_.notify_all();
    for (const Work& work : left) work.drop(WorkDrop::kStopping, 0);
    for (std::thread& thread : threads_) thread.join();
  }

  void Run(Work work) {
    std::vector<Work> cancelled;
    std::optional<Work> refused;
    int64_t retry_after_ms = 0;
    {
      std::lock_guard lock(mutex_);
      if (queue_.waiting() >= waiting_max_) {
        cancelled = queue_.TakeIf([](const Work& w) { return w.cancelled && w.cancelled(); });
      }
      const std::string client = work.client;
      refused = queue_.Push(client, std::move(work));
      if (refused) retry_after_ms = line_.OnRefused(clock_->Now());
    }
    ready_.notify_one();
    for (const Work& dropped : cancelled) dropped.drop(WorkDrop::kCancelled, 0);
    if (refused) refused->drop(WorkDrop::kFull, retry_after_ms);
  }

 private:
  void Serve() {
    std::unique_lock lock(mutex_);
    while (true) {
      ready_.wait(lock, [this] { return stopping_ || queue_.waiting() > 0; });
      const TimeUs started = clock_->Now();
      auto taken = queue_.Pop(started);
      if (!taken) return;  // Stopping.
      lock.unlock();
      if (taken->item.cancelled && taken->item.cancelled()) {
        taken->item.drop(WorkDrop::kCancelled, 0);
      } else {
        taken->item.run();
      }
      taken->item = {};  // Destroyed before the lock is taken again, because that may take long.
      lock.lock();
      queue_.Done(taken->client, started, clock_->Now());
      line_.OnFreed(clock_->Now());
    }
  }

  const Clock* const clock_;
  std::mutex mutex_;
  std::condition_variable ready_;
  FairQueue<Work> queue_;  // Guarded by mutex_, as is stopping_.
  RetryLine line_;         // Spreads the retries of refused clients. Guarded by mutex_.
  const size_t waiting_max_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace fathom::router
