// scheduler/sessions/delivery.h: what a session's subscribers have not been sent yet, as frames.
// Each attempt gets every token from its `have` on once, in order, prompt log-probabilities first,
// and one end per sequence.
#pragma once

#include <vector>

#include "scheduler/sessions/session.h"
#include "scheduler/sessions/session_actions.h"

namespace fathom::scheduler {

// Appends to `frames` and moves the subscribers' cursors. Lost subscribers are passed over.
void Deliver(Session& session, std::vector<Routed<Frame>>* frames);

}  // namespace fathom::scheduler
