// worker/progress.h: the state of a worker's engine thread that its heartbeats carry
// (docs/ARCHITECTURE.md, "Failure detection"): how far the thread is, in words that change while it
// works. Thread: the engine thread and the collector write it; any thread may change `phase`; any
// thread reads.
#pragma once

#include <atomic>
#include <cstdint>

#include "cluster/messages.h"

namespace fathom::worker {

struct Progress {
  std::atomic<Phase> phase{Phase::kStarting};
  std::atomic<uint64_t> step{0};  // The step in work, or the last step.
  std::atomic<uint64_t> op{0};    // Ops done in this epoch.
  // Collectives begun in this epoch, messages between stages included. A rank that waits for
  // another one has begun more of them than that one.
  std::atomic<uint64_t> collective{0};
  std::atomic<uint64_t> word{0};  // Any change shows that the thread works.
};

}  // namespace fathom::worker
