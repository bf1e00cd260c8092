// router/api/readiness.h: whether a request would be taken now, and what the model is, from the
// model folder and what the scheduler says. Pure.
#pragma once

#include <string>

#include "common/status.h"
#include "router/api/admission.h"
#include "router/api/model_folder.h"
#include "router/sessions/sessions.h"

namespace fathom::router {

// OK: a request would be answered. Else UNAVAILABLE with the reason: NO_SCHEDULER, NO_WORKERS,
// MODEL_MISMATCH.
absl::Status Readiness(const ModelFolder& folder, const Sessions::View& view);

// OK: a request may be admitted, though it may have to wait (a group is being replaced). Else as
// Readiness.
absl::Status CanAdmit(const ModelFolder& folder, const Sessions::View& view);

// REQUIRES: CanAdmit.
ModelFacts FactsOf(const ModelFolder& folder, const std::string& served_name,
                   bool has_chat_template, const Sessions::View& view);

}  // namespace fathom::router
