// scheduler/core/core_impl.h: the state behind SchedulerCore and its operations, by file:
//   scheduler_core.cc  events, timers, actions, statistics
//   invariants.cc      what must hold after every event
//   lifecycle.cc       how a sequence comes to wait, to run and to be suspended
//   planning.cc        which rows the next step of a group has
//   results.cc         applies the results of steps; groups that come up and are lost
//   swap.cc            moves the KV of preempted sequences to the host's memory and back
//   poison.cc          finds the requests that end the workers which compute them
// Thread: owned by the driver thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/status.h"
#include "common/types.h"
#include "scheduler/core/admission.h"
#include "scheduler/core/events.h"
#include "scheduler/core/forecast.h"
#include "scheduler/core/group.h"
#include "scheduler/core/placement.h"
#include "scheduler/core/policy.h"
#include "scheduler/core/scheduler_core.h"
#include "scheduler/core/sequence_prefix.h"
#include "scheduler/core/tenant_shares.h"
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
  // If a plan can take fewer ids than this, an admit waits for the next plan: AddPrefill holds back
  // the last id, so a single id would give no row.
  static constexpr int32_t kAdmitIdsMin = 2;

  // A plan that is being made, and the purpose of its rows.
  struct Draft {
    StepPlan plan;
    FlightStep flight;  // Its lane is the plan's.
    int32_t rows_left = 0;
    int32_t ids_left = 0;     // Of kAdmitIdsMax, over all admits.
    int32_t decoders = 0;     // Decode rows at most; counted if the group speculates.
    int32_t row_drafts = 0;   // Of each decode row.
    int32_t drafts_left = 0;  // Of all decode rows.
    // Of rows_left, for prompts of tenants that are over their share.
    int32_t over_rows_left = INT32_MAX;
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
  void On(TenantsChanged event);

  // ---- lifecycle.cc
  absl::Status CheckNew(const Record& record, int64_t deadline_us) override;
  absl::Status CheckDeadline(const Record& record, int64_t deadline_us);
  void Accepted(const SessionKey& key) override { admission_.Accepted(key); }
  void CountRefused(const absl::Status& status) override;
  int32_t CachedTokens(const Sequence& sequence) const override;
  int32_t CachedTokens(const Record& record) const;  // The most that a group has.
  void Enqueue(Sequence& sequence) override;
  void Wait(Sequence& sequence);  // From suspended to waiting; the tenant has paid for it.
  void Withdraw(Sequence& sequence, StayEnd why) override;
  void Dequeue(Sequence& sequence, bool admitted);  // From waiting to suspended.
  void Reorder(const Moves& moves);                 // The policy's, in the queue.
  void HoldOrNot(const std::string& tenant);        // As its running_max says.
  // Tokens that the sequence may still have computed for the first time.
  int64_t TokensLeft(const Sequence& sequence) const;
  // From waiting to running, in the plan that is drafted. False: there is no room, and nothing
  // changed. REQUIRES: the group has a free slot (Placement::NextFor).
  bool Seat(Group& group, Sequence& sequence, Draft& draft);
  // The sequence's blocks in the group, shared with others where that is possible.
  std::optional<KvReservation> ReserveFor(Group& group, const Sequence& sequence, int32_t known,
                                          const Draft& draft) const;
  void CountReuse(Sequence& sequence, const RunningState& running);
  // Makes what the sequence computed findable. REQUIRES: it runs in the group.
  void IndexBlocks(Group& group, Sequence& sequence);
  void Vacate(Sequence& sequence);  // From running to suspended: frees its slot and its blocks.
  // From running to waiting. The record keeps its tokens.
  void Interrupt(Sequence& sequence, StayEnd why);
  SequenceFacts FactsOf(const Sequence& sequence) const;
  Group* FindGroup(GroupId id);

  // ---- planning.cc
  void PlanAll();
  void NoteLimits();                          // What keeps the queue waiting from now on.
  bool PlanStep(Group& group);                // False: nothing to do.
  bool PlanLane(Group& group, int32_t lane);  // Likewise, for the sequences of one lane.
  bool SendPlan(Group& group, Draft& draft);  // False: the draft has no rows.
  void GrantDrafts(const Group& group, Draft& draft);
  int32_t DraftsFor(Group& group, Sequence& sequence, const Draft& draft);
  bool AddDecodes(Group& group, Draft& draft);      // False: a sequence was preempted.
  bool MakeRoom(Group& group, Sequence& sequence);  // False: `sequence` itself was preempted.
  void AddPrefills(Group& group, Draft& draft);
  void AddAdmissions(Group& group, Draft& draft);
  void NoteOvertaken(const std::vector<Sequence*>& overtaken);
  void AddPrefill(Sequence& sequence, bool first, Draft& draft);
  // Whether the sequence's prompt has only the rows that `over_rows_left` says.
  bool HasFewRows(const Sequence& sequence) const;
  FlightRow& AddRow(const Sequence& sequence, Draft& draft, int32_t tokens, bool sample);

  // ---- results.cc
  void On(const GroupUp& event);
  void On(const GroupLost& event);
  void On(const GroupDrain& event);
  void MoveAway(Group& group);  // The sequences that another group may take.
  void TellDrained();           // The groups that drain and have nothing left to do.
  void On(const StepDone& event);
  void LoseGroup(GroupId id);
  void CountSlots();  // After groups_ changed.
  // Tells Group::speculation how long a step took.
  // `step_us`: from the result before it, or from its plan, to its result.
  void LearnSpeed(Group& group, const FlightStep& flight, const StepResult& result,
                  int64_t step_us);
  void ApplyRow(Group& group, const FlightRow& flight, const ResultRow& row);
  void CountDrafts(const FlightRow& flight, const ResultRow& row, Sequence& sequence);
  void EndChunk(const FlightRow& flight);
  bool Concerns(const Group& group, const FlightRow& flight, const Sequence& sequence) const;

  // ---- swap.cc
  // Copies the KV of a running sequence to the swap space, if the space has room and that is faster
  // than to compute it again. The caller then takes the sequence out of its slot.
  void SwapOut(Group& group, Sequence& sequence);
  // The sequence got `running`, with its blocks: its KV in the swap space comes back into them.
  // Adds the copies that the plan must do.
  void SwapIn(const Group& group, Sequence& sequence, RunningState& running,
              std::vector<BlockCopy>* copies);
  void DropSwapped(Sequence& sequence);  // Frees its swap space, if it has any.

  // ---- poison.cc
  // Plans a step of a suspect alone. True: it did. False: a suspect of the group waits until the
  // steps in flight have ended. nullopt: no suspect is in the group or next for it.
  std::optional<bool> PlanSuspect(Group& group);
  void NoteDeath(Group& group);  // The group is lost, with its steps in flight.
  void FailPoison(Sequence& sequence);
  void NoteProgress(Sequence& sequence);
  void NoteChunk(const FlightRow& flight,
                 Sequence& sequence);  // A chunk of a prefill was computed.
  absl::Status CheckSuspects(const Group& group) const;

  const CoreOptions options_;
  Admission admission_;
  const std::unique_ptr<Policy> policy_;  // Reads admission_.table().
  TenantShares shares_;                   // Likewise.
  Forecast forecast_;
  TimeUs now_ = 0;
  WaitQueue waiting_;
  Groups groups_;
  const SequencePrefixes prefixes_;
  Placement placement_{groups_, waiting_, prefixes_, shares_};
  TimeUs unfit_check_us_ = 0;  // When FailUnfit is due; 0: not due.
  uint64_t next_seat_ = 1;
  // Session::number and index of the sequences that are or were suspects; PlanSuspect drops those
  // that are none any more.
  std::set<std::pair<uint64_t, int32_t>> suspects_;
  CoreStats counters_;  // Stats() fills in the gauges and what the sessions count.
  Actions actions_;     // Of the present Step.
  Sessions sessions_;
};

}  // namespace fathom::scheduler
