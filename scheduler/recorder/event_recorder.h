// scheduler/recorder/event_recorder.h: what the driver tells of every event that it gives the core.
// An interface, so that the driver sees no protobuf. Thread: the driver's.
#pragma once

#include <cstdint>

#include "scheduler/core/events.h"

namespace fathom::scheduler {

class EventRecorder {
 public:
  virtual ~EventRecorder() = default;

  // Before the core gets the event. Never fails: a recorder that cannot go on counts what it lacks.
  // When it returns, the recorded event survives the process: the event at which a core breaks is
  // the one that a recording is made for.
  virtual void Record(const Event& event, TimeUs now) = 0;

  uint64_t recorded() const { return recorded_; }
  uint64_t unrecorded() const { return unrecorded_; }  // Since the recording had to stop.

 protected:
  uint64_t recorded_ = 0;
  uint64_t unrecorded_ = 0;
};

}  // namespace fathom::scheduler
