// cli/serve/workers.h: `fathom workers`: starts, watches and stops the workers of one group on this
// host, for a scheduler that runs elsewhere. A worker that dies is started again, and one that does
// not work any more is killed (rank_watch.h); the others keep their weights. Thread: the calling
// one, which must be the program's first (as in serve.h).
#pragma once

#include "cli/serve/cluster_plan.h"
#include "common/clock.h"

namespace fathom::client {

// Runs until a stop signal, or until a worker ends with a final exit code; returns the exit code.
// Prints one line on stdout when all workers are registered with a scheduler: {"event":"ready",
// first_rank, workers, run_dir}. REQUIRES: stop signals are blocked; options.schedulers is not
// empty; PlaceGroup was called.
int Workers(ServeOptions options, const Clock& clock);

}  // namespace fathom::client
