// kernels/cpu/thread_pool.h: the threads of one rank. A job is cut into parts by index, and threads
// claim parts. Each output is made by one part, so no result depends on the number of threads or on
// their order. Thread: one thread, the owner, calls Run. The owner claims parts too and never waits
// for a thread that has not begun one. With `threads` == 1 no thread is started. A thread without
// work spins for a few microseconds, then sleeps.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace fathom::kernels {

class ThreadPool {
 public:
  // REQUIRES: threads >= 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end) for parts that cover [0, count), each of about `grain` or more, and
  // returns when all of them are done. Work of one grain or less runs in the calling thread alone.
  // `body` must not throw.
  template <class Body>
  void Run(int64_t count, int64_t grain, Body&& body) {
    if (count <= grain || workers_.empty()) {
      if (count > 0) body(int64_t{0}, count);
      return;
    }
    using Plain = std::remove_reference_t<Body>;
    RunJob({[](void* context, int64_t begin, int64_t end) {
              (*static_cast<Plain*>(context))(begin, end);
            },
            const_cast<void*>(static_cast<const void*>(&body)), count, grain});
  }

 private:
  struct Job {
    void (*call)(void* context, int64_t begin, int64_t end) = nullptr;
    void* context = nullptr;
    int64_t count = 0;
    int64_t grain = 1;
  };

  void RunJob(const Job& job);
  bool RunOnePart();
  void Work();

  std::vector<std::thread> workers_;
  Job job_;  // Written by the owner while no part is open; read after a claim.
  // round << 32 | parts << 16 | parts claimed. A claim is a compare-and-swap, so a claim with an
  // old round fails.
  std::atomic<uint64_t> state_{0};
  std::atomic<uint32_t> done_{0};   // Parts finished in this round.
  std::atomic<uint32_t> round_{0};  // Sleeping threads wait for this word to change.
  std::atomic<bool> stop_{false};
};

}  // namespace fathom::kernels
