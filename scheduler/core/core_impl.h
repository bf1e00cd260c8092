// scheduler/core/core_impl.h: the state behind SchedulerCore and its operations, by file:
//   scheduler_core.cc  events in, timers, actions out, figures
//   invariants.cc      what must hold after every event
//   submit.cc          Submit, Suspend, Close: what routers want
//   lifecycle.cc       the one way into each state of a sequence
//   planning.cc        which rows the next step of a group has
//   results.cc         what came of a step; groups that come and go
// Thread: owned by the driver thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
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
#include "scheduler/sessions/session.h"
#include "scheduler/sessions/session_table.h"

namespace fathom::scheduler {

class SchedulerCore::Impl {
 public:
  explicit Impl(const CoreOptions& options);

  Actions Step(Event event, TimeUs now);
  TimeUs NextWakeup() const;
  CoreStats Stats() const;
  absl::Status CheckInvariants() const;

 private:
  static constexpr size_t kLogLinesMax = 8;  // Of one Step.

  // A plan under construction and what its rows are for.
  struct Draft {
    StepPlan plan;
    FlightStep flight;
    int32_t rows_left = 0;
    int32_t ids_left = 0;  // Of kAdmitIdsMax, over all admits.
  };

  // ---- scheduler_core.cc
  void ExpireTimers();
  void FailUnfit();                           // Waiting sequences that fit no live group.
  void FailWithoutModel(Sequence& sequence);  // Whose model only other models' groups replaced.
  void DeliverAll();
  void EvictOverLimit();
  absl::Status CheckSession(const Session& session) const;

  // ---- submit.cc
  void On(Routed<Submit> event);
  void On(const Routed<Suspend>& event);
  void On(const Routed<Close>& event);
  void On(const RouterLost& event);
  void On(const Tick&) {}
  void Refuse(const Routed<Submit>& event, const absl::Status& status);
  // It is over, a sequence of it failed, and nobody is still to be told.
  static bool Failed(const Session& session);
  absl::Status CheckNew(const Submit& submit);
  absl::Status CheckLimitsOfQueue(const Record& record);
  // Takes record and blob out of `submit`. REQUIRES: submit->record.
  Session& CreateSession(Submit* submit);
  void AdoptLonger(Session& session, Record submitted);
  // `prompt_logprobs_known`: how many the router has, or has when Accepted is there.
  void Accept(Session& session, const Routed<Submit>& event, size_t prompt_logprobs_known);

  // ---- lifecycle.cc
  void Enqueue(Sequence& sequence);                 // From suspended.
  void Dequeue(Sequence& sequence, bool admitted);  // To suspended; does nothing unless it waits.
  // From waiting. Returns the copies that the plan must do before it uses the blocks.
  // REQUIRES: the group has a free slot and room (Placement::NextFor).
  std::vector<BlockCopy> Seat(Group& group, Sequence& sequence);
  void Vacate(Sequence& sequence);     // From running to suspended: slot and blocks are free.
  void Interrupt(Sequence& sequence);  // From running to waiting, tokens kept.
  void SuspendSession(Session& session);
  void Finish(Sequence& sequence, FinishReason reason);
  void Fail(Sequence& sequence, absl::Status error);
  void End(Sequence& sequence, FinishedState state);
  // Finishes a sequence whose ids have ended. True: they had.
  bool FinishIfEnded(Sequence& sequence);
  void MarkDirty(Session& session);
  SequenceFacts FactsOf(const Sequence& sequence) const;
  SequenceTimings TimingsOf(const Sequence& sequence) const;
  Group* FindGroup(GroupId id);

  // ---- planning.cc
  void PlanAll();
  bool PlanStep(Group& group);                  // False: nothing to do.
  bool AddDecodes(Group& group, Draft& draft);  // False: somebody was suspended for want of blocks.
  bool MakeRoom(Group& group, Sequence& sequence);  // False: the sequence itself was suspended.
  void AddPrefills(Group& group, Draft& draft);
  void AddAdmissions(Group& group, Draft& draft);
  void AddPrefill(Sequence& sequence, bool first, Draft& draft);
  FlightRow& AddRow(const Sequence& sequence, Draft& draft, int32_t tokens, bool sample);

  // ---- results.cc
  void On(const GroupUp& event);
  void On(const GroupLost& event);
  void On(const StepDone& event);
  void LoseGroup(GroupId id);
  void ApplyRow(const Group& group, const FlightRow& flight, const ResultRow& row);
  bool Concerns(const Group& group, const FlightRow& flight, const Sequence& sequence) const;
  void AcceptPromptLogprobs(const Group& group, Sequence& sequence, const PromptLogprobs& logprobs);
  // Takes row.ids[index].
  void AcceptToken(const Group& group, Sequence& sequence, const ResultRow& row, size_t index);
  void NoteFingerprint(Session& session, int32_t position, const Group& group);

  const CoreOptions options_;
  const std::unique_ptr<Policy> policy_;
  TimeUs now_ = 0;
  SessionTable sessions_;
  WaitQueue waiting_;
  Groups groups_;
  Placement placement_{groups_, waiting_};
  TimeUs unfit_check_us_ = 0;  // 0: none due.
  uint64_t next_seat_ = 1;
  RetryLine queue_line_, memory_line_;  // Of those who are refused for want of room.
  CoreStats counters_;                  // Its gauges are filled by Stats().

  // Of the Step under way.
  Actions actions_;
  std::vector<uint64_t> dirty_;
};

}  // namespace fathom::scheduler
