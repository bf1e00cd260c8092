// worker/progress.h: what a worker's heartbeats say about its engine thread (docs/ARCHITECTURE.md,
// "Failure detection"): how far it is, in words that move while it lives. Thread: written by the
// engine thread, except `phase` (whoever changes it); read by any.
#pragma once

#include <atomic>
#include <cstdint>

#include "cluster/messages.h"

namespace fathom::worker {

struct Progress {
  std::atomic<Phase> phase{Phase::kStarting};
  std::atomic<uint64_t> step{0};        // The step in work, or the last one done.
  std::atomic<uint64_t> op{0};          // Ops done in the epoch.
  std::atomic<uint64_t> collective{0};  // Collectives done in the epoch.
  std::atomic<uint64_t> word{0};        // Any change means life.
};

}  // namespace fathom::worker
