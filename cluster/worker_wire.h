// cluster/worker_wire.h: converts a worker's recorded steps to messages of worker.proto and back.
// Pure functions.
#pragma once

#include "cluster/step_trace.h"

namespace fathom::worker::v1 {
class StepTrace;
}  // namespace fathom::worker::v1

namespace fathom {

void ToWire(const StepTrace& from, worker::v1::StepTrace* to);
StepTrace FromWire(const worker::v1::StepTrace& from);

}  // namespace fathom
