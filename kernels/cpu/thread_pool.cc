#include "kernels/cpu/thread_pool.h"

#include <algorithm>

namespace fathom::kernels {
namespace {

// About 5 us on current cores. This is longer than the owner's work between two jobs of a step, so
// the threads do not sleep within a step.
constexpr int kSpins = 200;
// There are more parts than threads, so that one interrupted thread does not delay the whole job.
constexpr int64_t kPartsPerThread = 2;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { Work(); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  round_.fetch_add(1);
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunJob(const Job& job) {
  const int64_t most = kPartsPerThread * threads();
  const uint64_t parts =
      static_cast<uint64_t>(std::min(most, (job.count + job.grain - 1) / job.grain));
  job_ = job;
  done_.store(0, std::memory_order_relaxed);
  const uint32_t round = round_.load(std::memory_order_relaxed) + 1;
  state_.store(uint64_t{round} << 32 | parts << 16, std::memory_order_release);
  round_.store(round, std::memory_order_release);
  round_.notify_all();
  while (RunOnePart()) {
  }
  for (int spins = 0; done_.load(std::memory_order_acquire) != parts; ++spins) {
    if (spins < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

bool ThreadPool::RunOnePart() {
  uint64_t state = state_.load(std::memory_order_acquire);
  int64_t part, parts;
  do {
    part = static_cast<int64_t>(state & 0xFFFF);
    parts = static_cast<int64_t>(state >> 16 & 0xFFFF);
    if (part >= parts) return false;
  } while (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel,
                                         std::memory_order_acquire));
  job_.call(job_.context, job_.count * part / parts, job_.count * (part + 1) / parts);
  done_.fetch_add(1, std::memory_order_release);
  return true;
}

void ThreadPool::Work() {
  uint32_t seen = 0;
  while (!stop_.load(std::memory_order_acquire)) {
    while (RunOnePart()) {
    }
    int spins = 0;
    uint32_t round = round_.load(std::memory_order_acquire);
    while (round == seen && spins++ < kSpins) {
      Pause();
      round = round_.load(std::memory_order_acquire);
    }
    if (round == seen) {
      round_.wait(seen, std::memory_order_acquire);
      round = round_.load(std::memory_order_acquire);
    }
    seen = round;
  }
}

}  // namespace fathom::kernels
