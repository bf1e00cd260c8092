// cluster/worker_wire.h: steps as a worker recorded them <-> messages of worker.proto. Pure
// functions.
#pragma once

#include "cluster/step_trace.h"

namespace fathom::worker::v1 {
class StepTrace;
}  // namespace fathom::worker::v1

namespace fathom {

void ToWire(const StepTrace& from, worker::v1::StepTrace* to);
StepTrace FromWire(const worker::v1::StepTrace& from);

}  // namespace fathom
