// worker/cluster/control.h: what the engine thread says to the leader outside of steps, while its
// group is set up. Thread: any. Messages go to the scheduler that gave the seat; they are lost when
// its stream breaks, which ends the epoch too.
#pragma once

#include <memory>
#include <string>

#include "worker/engine/epoch.h"
#include "worker/engine/step_channel.h"

namespace fathom::worker {

class Control {
 public:
  virtual ~Control() = default;
  virtual void SendExchange(const Epoch& epoch, int32_t round, const std::string& bytes) = 0;
  // Loaded and connected; the steps are dialled next.
  virtual void SendReady(const Epoch& epoch) = 0;
  virtual void SendFailed(const Epoch& epoch, const std::string& message) = 0;
  // The steps of `epoch`, which outlives the channel. A leader that cannot be reached shows at the
  // first Read.
  virtual std::unique_ptr<StepChannel> DialSteps(Epoch& epoch) = 0;
};

}  // namespace fathom::worker
