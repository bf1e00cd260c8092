// scheduler/core/core_impl.h: the state behind SchedulerCore and its operations, by file:
//   scheduler_core.cc  events, timers, actions, statistics
//   invariants.cc      what must hold after every event
//   lifecycle.cc       how a sequence comes to wait, to run and to be suspended
//   planning.cc        which rows the next step of a group has
//   results.cc         applies the results of steps; groups that come up and are lost
// Thread: owned by the driver thread.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "common/retry_delay.h"
#include "common/status.h"
#include "common/types.h"
#include "scheduler/core/events.h"
#include "scheduler/core/group.h"
#include "scheduler/core/placement.h"
#include "scheduler/core/policy.h"
#include "scheduler/core/scheduler_core.h"
#include "scheduler/core/wait_queue.h"
#include "scheduler/sessions/sessions.h"

namespace fathom::scheduler {

class SchedulerCore::Impl final : private Batching {
 public:
  explicit Impl(const CoreOptions& options);

  Actions Step(Event event, TimeUs now);
  Explained Explain(const SessionKey& key, TimeUs now) const;
  TimeUs NextWakeup() const;
  CoreStats Stats() const;
  absl::Status CheckInvariants() const;

 private:
  // A plan that is being made, and the purpose of its rows.
  struct Draft {
    StepPlan plan;
    FlightStep flight;  // Its lane is the plan's.
    int32_t rows_left = 0;
    int32_t ids_left = 0;  // Of kAdmitIdsMax, over all admits.
  };

  // ---- scheduler_core.cc
  void FailUnfit();  // Fails the waiting sequences that fit no live group.
  // Fails a waiting sequence whose model has had no group for `model_wait_us`, while other models
  // have groups.
  void FailWithoutModel(Sequence& sequence);
  // The sessions take what routers send.
  void On(Routed<Submit> event) { sessions_.On(std::move(event)); }
  void On(const Routed<Suspend>& event) { sessions_.On(event); }
  void On(const Routed<Close>& event) { sessions_.On(event); }
  void On(const RouterLost& event) { sessions_.RouterLost(event.router); }
  void On(const Tick&) {}

  // ---- lifecycle.cc
  absl::Status CheckNew(const Record& record) override;
  void Enqueue(Sequence& sequence) override;
  void Withdraw(Sequence& sequence, StayEnd why) override;
  void Dequeue(Sequence& sequence, bool admitted);  // From waiting to suspended.
  void Reorder(const Moves& moves);                 // The policy's, in the queue.
  // From waiting to running. Returns the copies that the plan must do before it uses the blocks.
  // REQUIRES: the group has a free slot and room (Placement::NextFor).
  std::vector<BlockCopy> Seat(Group& group, int32_t lane, Sequence& sequence);
  void Vacate(Sequence& sequence);  // From running to suspended: frees its slot and its blocks.
  // From running to waiting. The record keeps its tokens.
  void Interrupt(Sequence& sequence, StayEnd why);
  SequenceFacts FactsOf(const Sequence& sequence) const;
  Group* FindGroup(GroupId id);

  // ---- planning.cc
  void PlanAll();
  void NoteLimits();                                // What keeps the queue waiting from now on.
  bool PlanStep(Group& group);                      // False: nothing to do.
  bool PlanLane(Group& group, int32_t lane);        // Likewise, for the sequences of one lane.
  bool AddDecodes(Group& group, Draft& draft);      // False: a sequence was preempted.
  bool MakeRoom(Group& group, Sequence& sequence);  // False: `sequence` itself was preempted.
  void AddPrefills(Group& group, Draft& draft);
  void AddAdmissions(Group& group, Draft& draft);
  void AddPrefill(Sequence& sequence, bool first, Draft& draft);
  FlightRow& AddRow(const Sequence& sequence, Draft& draft, int32_t tokens, bool sample);

  // ---- results.cc
  void On(const GroupUp& event);
  void On(const GroupLost& event);
  void On(const GroupDrain& event);
  void MoveAway(Group& group);  // The sequences that another group may take.
  void TellDrained();           // The groups that drain and have nothing left to do.
  void On(const StepDone& event);
  void LoseGroup(GroupId id);
  void ApplyRow(const Group& group, const FlightRow& flight, const ResultRow& row);
  void EndChunk(const FlightRow& flight);
  bool Concerns(const Group& group, const FlightRow& flight, const Sequence& sequence) const;

  const CoreOptions options_;
  const std::unique_ptr<Policy> policy_;
  TimeUs now_ = 0;
  WaitQueue waiting_;
  Groups groups_;
  Placement placement_{groups_, waiting_};
  TimeUs unfit_check_us_ = 0;  // When FailUnfit is due; 0: not due.
  uint64_t next_seat_ = 1;
  RetryLine queue_line_;  // Of requests that are refused because the queue is full.
  CoreStats counters_;    // Stats() fills in the gauges and what the sessions count.
  Actions actions_;       // Of the present Step.
  Sessions sessions_;
};

}  // namespace fathom::scheduler
