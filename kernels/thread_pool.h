// kernels/thread_pool.h: the threads of one rank. Work is split by index, each output is made by
// one thread, and so no result depends on how many there are. Thread: Run is called by one thread
// at a time, the owner, which works as thread 0. `threads` == 1 starts none. A thread without work
// spins for a few microseconds, then sleeps.
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

  // Calls body(begin, end) on each thread with its part of [0, count), parts being multiples of
  // `grain` but for the last, and returns when all are done. Work of one grain or less runs in the
  // caller alone. `body` must not throw.
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
  void RunPart(const Job& job, int thread) const;
  void Work(int thread);

  std::vector<std::thread> workers_;
  Job job_;                             // Written by the owner before `round_` moves.
  std::atomic<uint32_t> round_{0};      // Moves by one per job; kStop ends the threads.
  std::atomic<uint32_t> remaining_{0};  // Workers that have not finished the job.
  std::atomic<bool> stop_{false};
};

}  // namespace fathom::kernels
