// router/api/readiness.h: decides from the model folder and from what the scheduler reports whether
// a request would be answered now, and gives admission its ModelFacts. Pure.
#pragma once

#include <string>

#include "common/status.h"
#include "router/api/admission.h"
#include "router/api/model_folder.h"
#include "router/sessions/sessions.h"

namespace fathom::router {

// OK: a request would be answered now. Else UNAVAILABLE with the reason NO_SCHEDULER, NO_WORKERS or
// MODEL_MISMATCH.
absl::Status Readiness(const ModelFolder& folder, const Sessions::View& view);

// OK: a request may be admitted. It may have to wait, for example while a lost group is replaced.
// Else the errors of Readiness.
absl::Status CanAdmit(const ModelFolder& folder, const Sessions::View& view);

// REQUIRES: CanAdmit(folder, view) is OK.
ModelFacts FactsOf(const ModelFolder& folder, const std::string& served_name,
                   bool has_chat_template, const Sessions::View& view);

}  // namespace fathom::router
