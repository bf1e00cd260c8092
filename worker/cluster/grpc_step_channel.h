// worker/cluster/grpc_step_channel.h: a StepChannel over Scheduler.Steps. The threads of the step
// loop read and write a synchronous stream themselves, without another thread in between.
#pragma once

#include <memory>
#include <string>

#include "cluster/channel.h"
#include "worker/engine/epoch.h"
#include "worker/engine/step_channel.h"

namespace fathom::worker {

// Dials and sends StepsHello. `epoch` outlives the channel; its end cancels the call.
std::unique_ptr<StepChannel> DialSteps(const std::string& address, const ChannelOptions& channel,
                                       const std::string& process_id, Epoch& epoch);

}  // namespace fathom::worker
