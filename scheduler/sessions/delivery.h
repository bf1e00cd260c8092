// scheduler/sessions/delivery.h: what a session's subscribers have not been sent yet, as frames.
// Each attempt gets every token from its `have` on once, in order, prompt log-probabilities first,
// and one end per sequence.
#pragma once

#include <vector>

#include "cluster/route_messages.h"
#include "scheduler/sessions/routed.h"
#include "scheduler/sessions/session.h"

namespace fathom::scheduler {

// Appends to `frames` and moves the subscribers' cursors. Lost subscribers are passed over.
void Deliver(Session& session, std::vector<Routed<Frame>>* frames);

}  // namespace fathom::scheduler
