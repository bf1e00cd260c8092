// worker/progress.h: the state of a worker's engine thread that its heartbeats carry
// (docs/ARCHITECTURE.md, "Failure detection"): how far the thread is, in words that change while it
// works, and what it does, for people. Thread: the engine thread and the collector write it; any
// thread may change `phase`; any thread reads.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>

#include "cluster/messages.h"
#include "common/types.h"
#include "worker/start_log.h"

namespace fathom::worker {

// What a device that runs ahead of the engine thread does, by its own word.
struct DeviceWork {
  StepId step;
  RankWork work;
  uint64_t collectives = 0;  // Begun in this epoch.
};

class DeviceProbe {
 public:
  virtual ~DeviceProbe() = default;
  // Any thread, at any time between SetProbe and the next one. Must be cheap and must not wait for
  // the device.
  virtual DeviceWork Read() const = 0;
};

struct Progress {
  std::atomic<Phase> phase{Phase::kStarting};
  std::atomic<uint64_t> step{0};  // The step in work, or the last step.
  std::atomic<uint64_t> op{0};    // Ops done in this epoch.
  // Collectives begun in this epoch, messages between stages included. A rank that waits for
  // another one has begun more of them than that one.
  std::atomic<uint64_t> collective{0};
  std::atomic<uint64_t> word{0};  // Any change shows that the thread works.
  // The seat whose steps the engine thread runs; -1: none.
  std::atomic<int32_t> group{-1};
  std::atomic<int32_t> rank{-1};
  StartLog* start = nullptr;  // Set before other threads see it; may be null.

  void BeginStep(StepId id, Activity activity) {
    step.store(id.value, std::memory_order_relaxed);
    collectives_before_.store(collective.load(std::memory_order_relaxed),
                              std::memory_order_relaxed);
    Enter(activity);
    word.fetch_add(1);
  }
  // The thread begins this part of the step. `layer`: of the model; -1: none.
  void Enter(Activity activity, int32_t layer = -1) {
    place_.store(Packed(activity, layer), std::memory_order_relaxed);
  }
  // While it lives, a message from or to another stage is under way.
  class StageMessage {
   public:
    explicit StageMessage(Progress* progress)
        : place_(progress->place_),
          before_(place_.exchange(Packed(Activity::kStageMessage, -1), std::memory_order_relaxed)) {
    }
    ~StageMessage() { place_.store(before_, std::memory_order_relaxed); }
    StageMessage(const StageMessage&) = delete;
    StageMessage& operator=(const StageMessage&) = delete;

   private:
    std::atomic<uint64_t>& place_;
    const uint64_t before_;
  };

  void MarkStart(StartPhase part, int64_t bytes = 0) {
    if (start != nullptr) start->Mark(part, bytes);
  }

  // `probe` lives until the next call; null: none. When SetProbe returns, no thread reads the old
  // one any more.
  void SetProbe(const DeviceProbe* probe) {
    const std::lock_guard lock(probe_mutex_);
    probe_ = probe;
  }
  // Where the device is, if it tells, else the engine thread.
  DeviceWork Now() const {
    {
      const std::lock_guard lock(probe_mutex_);
      if (probe_ != nullptr) return probe_->Read();
    }
    const uint64_t place = place_.load(std::memory_order_relaxed);
    const uint64_t begun = collective.load(std::memory_order_relaxed);
    const uint64_t before = collectives_before_.load(std::memory_order_relaxed);
    // At the begin of an epoch `collective` is 0 before the first step begins.
    return {StepId{step.load(std::memory_order_relaxed)},
            {static_cast<Activity>(place >> 32), static_cast<int32_t>(place & 0xffffffff) - 1,
             begun >= before ? begun - before : 0},
            begun};
  }

 private:
  static uint64_t Packed(Activity activity, int32_t layer) {
    return static_cast<uint64_t>(activity) << 32 | static_cast<uint32_t>(layer + 1);
  }
  std::atomic<uint64_t> place_{0};  // Activity, and layer + 1.
  std::atomic<uint64_t> collectives_before_{0};
  mutable std::mutex probe_mutex_;  // Guards what follows.
  const DeviceProbe* probe_ = nullptr;
};

}  // namespace fathom::worker
