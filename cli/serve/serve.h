// cli/serve/serve.h: `fathom serve`: a whole cluster on this machine, started, watched and stopped.
// Thread: the calling one, which must be the program's first (children follow it to the grave).
#pragma once

#include "cli/serve/cluster_plan.h"
#include "common/clock.h"

namespace fathom::client {

// Runs until a stop signal or a child's final word; returns the exit code. One line on stdout when
// the cluster can answer: {"event":"ready", ports, pids, timeline}; the rest is for people, on
// stderr. REQUIRES: stop signals are blocked.
int Serve(ServeOptions options, const Clock& clock);

}  // namespace fathom::client
