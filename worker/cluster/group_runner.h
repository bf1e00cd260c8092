// worker/cluster/group_runner.h: the main loop of the engine thread: it takes a seat, loads the
// model, connects to the other ranks, runs the steps of the epoch, and takes the next seat, until
// the membership is closed. Thread: Run is the engine thread. No gRPC here: Control and StepChannel
// are interfaces.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>

#include "common/group_shape.h"
#include "common/status.h"
#include "worker/cluster/control.h"
#include "worker/cluster/membership.h"
#include "worker/comm/comm.h"
#include "worker/comm/shm_comm.h"
#include "worker/comm/shm_stages.h"
#include "worker/engine/device.h"
#include "worker/engine/epoch.h"
#include "worker/engine/step_stream.h"
#include "worker/progress.h"

namespace fathom::worker {

struct GroupRunnerOptions {
  GroupShape shape;
  EngineLimits limits;     // The limits of this worker; those of a seat may be lower.
  StageMessages messages;  // With several stages: the longest ones of a step.
  std::chrono::milliseconds exchange_timeout{10'000};
};

// Returns the device of `rank`, which its owner keeps between epochs. An error comes from the model
// folder and ends the process.
using DeviceForRank = std::function<absl::StatusOr<Device*>(int rank)>;

class GroupRunner {
 public:
  // All pointers outlive the GroupRunner. `stop` ends an epoch after its steps in flight.
  GroupRunner(const GroupRunnerOptions& options, Membership* membership, Control* control,
              DeviceForRank device_for_rank, const Clock* clock, Progress* progress,
              const std::atomic<bool>* stop, StepObserver observer);

  // OK: the membership was closed. An error makes this process useless: the model cannot be loaded.
  absl::Status Run();

  // The number of epochs that have begun. Any thread.
  uint64_t epochs() const { return epochs_.load(); }

 private:
  // The ways to the other ranks in one epoch.
  struct Links {
    std::unique_ptr<Comm> comm;         // Of the stage.
    ShmComm* shared = nullptr;          // `comm`, if the stage has several ranks.
    std::unique_ptr<ShmStages> stages;  // Null if the group has one stage.
    // Ends every wait of every rank that shares memory with this one.
    void Abort();
  };

  absl::Status RunSeat(Epoch& epoch, Device& device);
  absl::Status RunSteps(Epoch& epoch, Device& device);
  absl::StatusOr<Links> Connect(Epoch& epoch);
  absl::Status ConnectStage(Epoch& epoch, Links* links);
  absl::Status ConnectStages(Epoch& epoch, Links* links);
  // Ends the epoch if it has not ended yet, and tells the leader why.
  void End(Epoch& epoch, const absl::Status& status);
  absl::Status CheckSeat(const GroupSeat& seat) const;

  const GroupRunnerOptions options_;
  Membership* const membership_;
  Control* const control_;
  const DeviceForRank device_for_rank_;
  const Clock* const clock_;
  Progress* const progress_;
  const std::atomic<bool>* const stop_;
  const StepObserver observer_;
  std::atomic<uint64_t> epochs_{0};
};

}  // namespace fathom::worker
