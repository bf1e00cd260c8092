// worker/comm/shared_counter.h: a number in shared memory that one process raises and others wait
// for. It counts modulo 2^32. Thread: one thread of the owner calls Set; any thread of any process
// may wait. The waits are bounded by the abort word of the region that the counter is in.
#pragma once

#include <atomic>
#include <cstdint>

namespace fathom::worker {

// How long a wait usually is. kShort: the other process computes the same op and arrives within
// microseconds. kLong: it computes something else before.
enum class Wait { kShort, kLong };

// A cache line of its own, so that a waiting process disturbs only the process that it waits for.
struct alignas(64) SharedCounter {
  std::atomic<uint32_t> value;
  std::atomic<uint32_t> sleepers;  // Processes that may sleep until `value` changes.

  // Raises the number, and wakes the processes that wait for it.
  void Set(uint32_t raised);
  // Waits until the number is `target` or later. False: `aborted` was set before that.
  bool WaitFor(uint32_t target, const std::atomic<uint32_t>& aborted, Wait wait);
  // Wakes every process that waits, so that it looks at its abort word.
  void WakeAll();
};

static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);

}  // namespace fathom::worker
