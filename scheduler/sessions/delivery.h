// scheduler/sessions/delivery.h: makes frames of what a session's subscribers were not sent yet.
// Each attempt gets the prompt log-probabilities first, then every token from its `have` on, once
// and in order, and one end for each sequence.
#pragma once

#include <vector>

#include "scheduler/sessions/session.h"
#include "scheduler/sessions/session_actions.h"

namespace fathom::scheduler {

// Appends to `frames` and moves the subscribers' cursors. Lost subscribers get no frame.
void Deliver(Session& session, std::vector<Routed<Frame>>* frames);

}  // namespace fathom::scheduler
