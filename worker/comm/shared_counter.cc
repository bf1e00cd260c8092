#include "worker/comm/shared_counter.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ctime>

namespace fathom::worker {
namespace {

// If there are fewer cores than processes, the peer may need the core of this thread, so most of a
// short wait yields the core. Only after about 0.2 ms the thread sleeps, because a wake-up takes
// longer than a collective. In a long wait it sleeps at once: a thread that yields on a busy
// machine comes back later than one that is woken.
constexpr int kSpins = 200;
constexpr int kYields = 400;
// The longest delay of an abort whose wake-up was lost because its process died.
constexpr int64_t kSleepNs = 20'000'000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

uint32_t* WordOf(std::atomic<uint32_t>* atomic) { return reinterpret_cast<uint32_t*>(atomic); }

void FutexWait(std::atomic<uint32_t>* word, uint32_t seen) {
  const timespec timeout{0, kSleepNs};
  syscall(SYS_futex, WordOf(word), FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

// Whether `number` is `target` or later, counting modulo 2^32.
bool Reached(uint32_t number, uint32_t target) {
  return static_cast<int32_t>(number - target) >= 0;
}

}  // namespace

void SharedCounter::Set(uint32_t raised) {
  // Sequentially consistent with WaitFor: either the waiting process sees this number, or this one
  // sees the sleeper.
  value.store(raised);
  if (sleepers.load() != 0) WakeAll();
}

void SharedCounter::WakeAll() {
  syscall(SYS_futex, WordOf(&value), FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

bool SharedCounter::WaitFor(uint32_t target, const std::atomic<uint32_t>& aborted, Wait wait) {
  const int tries = wait == Wait::kShort ? kSpins + kYields : kSpins;
  for (int i = 0; i < tries; ++i) {
    if (Reached(value.load(std::memory_order_acquire), target)) return true;
    if (i < kSpins) {
      Pause();
    } else if (aborted.load(std::memory_order_relaxed) != 0) {
      break;  // On a busy machine the remaining yields may take a second.
    } else {
      sched_yield();
    }
  }
  bool reached = true;
  sleepers.fetch_add(1);
  while (true) {
    const uint32_t seen = value.load();
    if (Reached(seen, target)) break;
    if (aborted.load() != 0) {
      reached = false;
      break;
    }
    FutexWait(&value, seen);
  }
  sleepers.fetch_sub(1);
  return reached;
}

}  // namespace fathom::worker
