// scheduler/recorder/event_wire.h: events of the scheduler core <-> messages of
// proto/recording.proto. What a stream carries is converted by cluster/wire.h. Pure functions.
#pragma once

#include "common/status.h"
#include "scheduler/core/events.h"

namespace fathom::recording::v1 {
class Event;
}  // namespace fathom::recording::v1

namespace fathom::scheduler {

// Sets all but the time.
void EventToWire(const Event& event, recording::v1::Event* to);
// INVALID_ARGUMENT: a message without an event, or with values that no driver gives the core.
absl::StatusOr<Event> EventFromWire(recording::v1::Event&& from);

}  // namespace fathom::scheduler
