// scheduler/recorder/event_wire.h: converts events of the scheduler core to messages of
// proto/recording.proto and back. cluster/wire.h converts the parts that streams carry too. Pure
// functions.
#pragma once

#include "common/status.h"
#include "scheduler/core/events.h"

namespace fathom::recording::v1 {
class Event;
}  // namespace fathom::recording::v1

namespace fathom::scheduler {

// Sets everything except the time.
void EventToWire(const Event& event, recording::v1::Event* to);
// INVALID_ARGUMENT: a message without an event, or with values that no driver gives to the core.
absl::StatusOr<Event> EventFromWire(recording::v1::Event&& from);

}  // namespace fathom::scheduler
