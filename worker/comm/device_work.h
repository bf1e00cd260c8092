// worker/comm/device_work.h: which step, layer and collective a GPU is in. The host runs ahead of
// the device, and a replayed graph has no host calls, so the place follows from the number of the
// meeting that the device began last (DeviceComm::Began) and from how many meetings each queued
// step has. A layer has two all-reduces: after attention and after the MLP. Thread: the engine
// thread calls Queue and Clear; any thread may call WorkOf.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "common/types.h"
#include "worker/progress.h"

namespace fathom::worker {

// What the device began last, by its own word.
struct CommBegan {
  enum class Kind : uint8_t { kUnknown, kReduce, kGather, kMessage };
  Kind kind = Kind::kUnknown;  // kUnknown: nothing yet, or the comm does not know.
  uint32_t meeting = 0;        // From 1, modulo 2^32; not of a message.
};

// Calls and meetings of a comm.
struct CommCounts {
  uint64_t reduces = 0;  // All-reduces.
  uint64_t gathers = 0;  // All-gathers and exchanges of rows, with one meeting each.
  uint64_t meetings = 0;
  friend CommCounts operator-(const CommCounts& a, const CommCounts& b) {
    return {a.reduces - b.reduces, a.gathers - b.gathers, a.meetings - b.meetings};
  }
};

class StepsOnDevice {
 public:
  // `step` was queued, and its calls have these counts.
  void Queue(StepId step, const CommCounts& counts);
  // A new comm begins at meeting 0.
  void Clear();
  // `first_layer`: the model's index of the rank's first layer.
  DeviceWork WorkOf(const CommBegan& began, int32_t first_layer) const;

 private:
  struct Queued {
    StepId step;
    uint64_t before = 0;  // Meetings of all earlier steps.
    CommCounts counts;
  };
  static constexpr size_t kSteps = 8;  // More than a device has in flight.

  mutable std::mutex mutex_;  // Guards what follows.
  std::array<Queued, kSteps> steps_{};
  uint64_t queued_ = 0;
  uint64_t meetings_ = 0;  // Of all queued steps.
};

}  // namespace fathom::worker
