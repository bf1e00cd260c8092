// worker/cluster/grpc_step_channel.h: StepChannel over Scheduler.Steps: the threads of the
// step loop read and write a synchronous stream themselves, without a hop to another thread.
#pragma once

#include <memory>
#include <string>

#include "worker/engine/epoch.h"
#include "worker/engine/step_channel.h"

namespace fathom::worker {

// Dials and says StepsHello. `epoch` outlives the channel; its end cancels the call.
std::unique_ptr<StepChannel> DialSteps(const std::string& address, const std::string& process_id,
                                       Epoch& epoch);

}  // namespace fathom::worker
