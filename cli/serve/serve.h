// cli/serve/serve.h: `fathom serve`: starts, watches and stops a whole cluster on this machine.
// Thread: the calling one, which must be the program's first, because children are killed when the
// thread that started them ends.
#pragma once

#include "cli/serve/cluster_plan.h"
#include "common/clock.h"

namespace fathom::client {

// Runs until a stop signal, or until a child ends with a final exit code; returns the exit code.
// Prints one line on stdout when the cluster can answer: {"event":"ready", ports, pids, timeline}.
// All other output is for people, on stderr. REQUIRES: stop signals are blocked.
int Serve(ServeOptions options, const Clock& clock);

}  // namespace fathom::client
