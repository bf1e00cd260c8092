// worker/cluster/scheduler_client.h: the Control streams, one to each scheduler address: says
// hello, beats every 250 ms with the engine's progress, passes what the leader says on to
// Membership, and comes back for ever with a back-off (cluster/leader_link.h). Thread: two of its
// own for each address (one reads, one writes); Control's methods from any.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cluster/messages.h"
#include "common/clock.h"
#include "worker/cluster/control.h"
#include "worker/cluster/membership.h"
#include "worker/progress.h"

namespace fathom::worker {

// Told when the number of schedulers that this worker is registered with changes.
using RegisteredObserver = std::function<void(int schedulers)>;

class SchedulerClient final : public Control {
 public:
  // `addresses`: host:port. `hello`: what this process says first, but for term_seen. Pointers
  // outlive it; `draining` is told in heartbeats.
  SchedulerClient(std::vector<std::string> addresses, Hello hello, Membership* membership,
                  const Progress* progress, const std::atomic<bool>* draining, const Clock* clock,
                  RegisteredObserver registered);
  // Ends the streams; waits for its threads.
  ~SchedulerClient() override;

  void SendExchange(const Epoch& epoch, int32_t round, const std::string& bytes) override;
  void SendReady(const Epoch& epoch) override;
  void SendFailed(const Epoch& epoch, const std::string& message) override;
  std::unique_ptr<StepChannel> DialSteps(Epoch& epoch) override;

 private:
  struct Shared;  // What the streams have in common.
  class Stream;
  Stream& StreamOf(const Epoch& epoch);

  const std::vector<std::string> addresses_;
  const std::unique_ptr<Shared> shared_;
  std::vector<std::unique_ptr<Stream>> streams_;  // By address.
};

}  // namespace fathom::worker
