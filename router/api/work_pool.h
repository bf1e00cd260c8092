// router/api/work_pool.h: a few threads for work that is too long for a gRPC callback (tokenizing a
// long text). Bounded: a full pool says so at once. Thread: TryRun from any; the destructor runs
// what was taken, then joins.
#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "common/inbox.h"

namespace fathom::router {

class WorkPool {
 public:
  WorkPool(int threads, size_t waiting_max) : inbox_(waiting_max) {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this] {
        while (auto work = inbox_.Pop()) (*work)();
      });
    }
  }
  ~WorkPool() {
    inbox_.Close();
    for (std::thread& thread : threads_) thread.join();
  }

  // False: as much waits as may.
  [[nodiscard]] bool TryRun(std::function<void()> work) { return inbox_.TryPush(std::move(work)); }

 private:
  Inbox<std::function<void()>> inbox_;
  std::vector<std::thread> threads_;
};

}  // namespace fathom::router
