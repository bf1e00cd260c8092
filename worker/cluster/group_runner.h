// worker/cluster/group_runner.h: the engine thread's life: takes a seat, loads, connects to its
// peers, runs the epoch's steps, and takes the next seat, until it is closed. Thread: Run is the
// engine thread. No gRPC here: Control and StepChannel are interfaces.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>

#include "common/status.h"
#include "worker/cluster/control.h"
#include "worker/cluster/membership.h"
#include "worker/engine/backend.h"
#include "worker/engine/epoch.h"

namespace fathom::worker {

struct GroupRunnerOptions {
  int32_t tp = 1;
  EngineLimits limits;  // This worker's own; a seat's may be lower.
  std::chrono::milliseconds exchange_timeout{10'000};
};

class GroupRunner {
 public:
  // All pointers outlive it; `stop` ends an epoch after its step in flight.
  GroupRunner(const GroupRunnerOptions& options, Membership* membership, Control* control,
              BackendForRank backend_for_rank, Progress* progress, const std::atomic<bool>* stop,
              StepObserver observer);

  // OK: the membership was closed. Else what makes this process useless: a model that cannot be
  // loaded.
  absl::Status Run();

  // Epochs begun so far. Any thread.
  uint64_t epochs() const { return epochs_.load(); }

 private:
  absl::Status RunSeat(Epoch& epoch, Backend& backend);
  absl::StatusOr<std::unique_ptr<Comm>> Connect(Epoch& epoch);
  // Ends what nobody ended before, and tells the leader why.
  void End(Epoch& epoch, const absl::Status& status);
  absl::Status CheckSeat(const Seat& seat) const;

  const GroupRunnerOptions options_;
  Membership* const membership_;
  Control* const control_;
  const BackendForRank backend_for_rank_;
  Progress* const progress_;
  const std::atomic<bool>* const stop_;
  const StepObserver observer_;
  std::atomic<uint64_t> epochs_{0};
};

}  // namespace fathom::worker
