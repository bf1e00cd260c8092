// worker/cluster/scheduler_client.h: the Control streams, one to each scheduler address. Each
// stream sends hello and, every 250 ms, a heartbeat with the progress of the engine, passes what
// the leader sends to Membership, and dials again for ever with a back-off (cluster/leader_link.h).
// Thread: two threads for each address (one reads, one writes); any thread may call the methods of
// Control.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cluster/messages.h"
#include "common/clock.h"
#include "common/tls_files.h"
#include "worker/cluster/control.h"
#include "worker/cluster/membership.h"
#include "worker/progress.h"

namespace fathom::worker {

// Called when the number of schedulers that this worker is registered with changes.
using RegisteredObserver = std::function<void(int schedulers)>;

class SchedulerClient final : public Control {
 public:
  // `addresses`: host:port each. `hello`: the first message of this process, without term_seen. The
  // pointers outlive the client; heartbeats carry `draining`. `tls`: --cluster-cert and its
  // companions.
  SchedulerClient(std::vector<std::string> addresses, const TlsFiles& tls, Hello hello,
                  Membership* membership, const Progress* progress,
                  const std::atomic<bool>* draining, const Clock* clock,
                  RegisteredObserver registered);
  // Ends the streams and waits for the threads.
  ~SchedulerClient() override;

  // Sends a heartbeat at once, so that a change of `draining` is known at once.
  void Beat();
  // Whether the scheduler that led last moves the sequences of a group away when a worker says that
  // it leaves. One of version 1 does not know that phase; waiting for it would be in vain.
  bool LeaderDrains() const;

  void SendExchange(const Epoch& epoch, int32_t round, const std::string& bytes) override;
  void SendReady(const Epoch& epoch) override;
  void SendFailed(const Epoch& epoch, const std::string& message) override;
  std::unique_ptr<StepChannel> DialSteps(Epoch& epoch) override;

 private:
  struct Shared;  // The state that the streams share.
  class Stream;
  Stream& StreamOf(const Epoch& epoch);

  const std::vector<std::string> addresses_;
  const std::unique_ptr<Shared> shared_;
  std::vector<std::unique_ptr<Stream>> streams_;  // In the order of the addresses.
};

}  // namespace fathom::worker
