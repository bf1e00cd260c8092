// worker/cluster/scheduler_client.h: the Control streams, one to each scheduler address: says
// hello, beats every 250 ms with the engine's progress, passes what the leader says on to
// Membership, and comes back for ever with a back-off of 0.1 to 1 s. Thread: two of its own for
// each address (one reads, one writes); Control's methods from any.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "worker/cluster/control.h"
#include "worker/cluster/membership.h"
#include "worker/progress.h"

namespace fathom::worker {

// What Hello says of this process.
struct WorkerFacts {
  std::string process_id;
  std::string build;
  std::string host;
  std::string device;
  std::string model;  // Name that clients see.
  std::string config_digest;
  std::string weights_digest;
  std::string fingerprint;
  std::string health_address;
  std::string device_kind;  // As in the fingerprint.
  std::string dtype;        // Likewise.
  int32_t recipe = 0;       // Likewise.
  uint64_t memory_bytes = 0;
  EngineLimits limits;
  int32_t tp = 1;
  int32_t preferred_rank = -1;  // -1: none.
};

// Told when the number of schedulers that this worker is registered with changes.
using RegisteredObserver = std::function<void(int schedulers)>;

class SchedulerClient final : public Control {
 public:
  // `addresses`: host:port. Pointers outlive it; `draining` is told in heartbeats.
  SchedulerClient(std::vector<std::string> addresses, WorkerFacts facts, Membership* membership,
                  const Progress* progress, const std::atomic<bool>* draining, const Clock* clock,
                  RegisteredObserver registered);
  // Ends the streams; waits for its threads.
  ~SchedulerClient() override;

  void SendExchange(const Seat& seat, int32_t round, const std::string& bytes) override;
  void SendReady(const Seat& seat) override;
  void SendFailed(const Seat& seat, const std::string& message) override;
  std::unique_ptr<StepChannel> DialSteps(Epoch& epoch) override;

 private:
  struct Shared;  // What the streams have in common.
  class Stream;

  const std::vector<std::string> addresses_;
  const std::unique_ptr<Shared> shared_;
  std::vector<std::unique_ptr<Stream>> streams_;  // By address.
};

}  // namespace fathom::worker
