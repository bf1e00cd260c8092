// worker/cluster/control.h: the messages of the engine thread to the leader outside of steps, while
// its group is set up. Thread: any. A message goes to the scheduler that gave the seat. It is lost
// if the stream to this scheduler breaks, which also ends the epoch.
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
  // The rank is loaded and connected; it dials the steps next.
  virtual void SendReady(const Epoch& epoch) = 0;
  virtual void SendFailed(const Epoch& epoch, const std::string& message) = 0;
  // Dials the steps of `epoch`, which outlives the channel. If the leader cannot be reached, the
  // first Read fails.
  virtual std::unique_ptr<StepChannel> DialSteps(Epoch& epoch) = 0;
};

}  // namespace fathom::worker
