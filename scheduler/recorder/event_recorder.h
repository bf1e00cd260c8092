// scheduler/recorder/event_recorder.h: receives every event that the driver gives to the core. It
// is an interface, so that the driver does not see protobuf. Thread: the driver's.
#pragma once

#include <cstdint>

#include "scheduler/core/events.h"

namespace fathom::scheduler {

class EventRecorder {
 public:
  virtual ~EventRecorder() = default;

  // Called before the core gets the event. Never fails: a recorder that cannot write counts the
  // missing events. When the call returns, the recorded event survives a crash of the process; a
  // recording exists to show the event that broke the core.
  virtual void Record(const Event& event, TimeUs now) = 0;

  uint64_t recorded() const { return recorded_; }
  uint64_t unrecorded() const { return unrecorded_; }  // Events since the recording had to stop.

 protected:
  uint64_t recorded_ = 0;
  uint64_t unrecorded_ = 0;
};

}  // namespace fathom::scheduler
