// scheduler/membership/worker_group.h: which workers there are, which group each sits in, and
// whether it lives. Forms a group when tp * pp matching workers of one host are free, gives it an
// epoch never used before in the term, waits until every rank is ready and listens, watches it, and
// ends it at the first sign of a loss; the survivors are free for a new group with a new epoch.
// Pure: no IO, no clock. Thread: owned by the driver thread. REQUIRES: `now` never goes back.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cluster/control_messages.h"
#include "cluster/messages.h"
#include "cluster/plan.h"
#include "common/status.h"
#include "common/types.h"
#include "scheduler/core/events.h"

namespace fathom::scheduler {

struct WorkerGroupOptions {
  int64_t heartbeat_silence_us = kSilenceUs;
  int64_t stall_us = 10'000'000;       // The progress word stands still inside a step.
  int64_t loading_us = 600'000'000;    // Longest time in LOADING or CAPTURING.
  int64_t connecting_us = 30'000'000;  // Longest time in any other phase before the group is up.
  // A rank that ended its group is not seated again for so long. Groups that are lost one after
  // another, none of which worked, make all their ranks wait, twice as long each time; a single
  // loss costs the survivors nothing.
  int64_t retry_us = 200'000;
  int64_t retry_max_us = 30'000'000;
  int64_t healthy_us = 10'000'000;  // A group that was up for so long, or did a step, has worked.
  int64_t tick_us =
      100'000;  // How often OnTick is called; one that comes later moves all deadlines.
};

// What the driver must do, in this order of members.
struct GroupActions {
  std::vector<std::pair<PeerId, std::variant<GroupSeat, GroupExchange, Abort>>> messages;
  std::vector<std::pair<PeerId, absl::Status>> closes;
  std::vector<GroupLost> lost;
  std::vector<GroupUp> up;
  std::vector<std::string> log;  // One line for each group that comes or goes.
};

struct WorkerGroupStats {
  int32_t workers = 0;
  int32_t groups_up = 0;
  uint64_t groups_formed_total = 0;
  uint64_t groups_lost_total = 0;
  uint64_t stale_epoch_rejected_total = 0;  // Results and messages of another term, epoch or rank.
  std::string last_loss;                    // Which rank and why, of the last group that was lost.
  int32_t losses_alike = 0;  // Losses in a row for that reason, of groups that never worked.
};

class WorkerGroups {
 public:
  WorkerGroups(const WorkerGroupOptions& options, TermId term) : options_(options), term_(term) {}

  // A worker's first message on Control. Refused (closed, with the reason) when its facts cannot be
  // or it has another model than the workers that are here.
  void OnHello(PeerId control, Hello hello, TimeUs now, GroupActions* out);
  void OnHeartbeat(PeerId control, const Heartbeat& beat, TimeUs now);
  void OnExchange(PeerId control, GroupExchange exchange, GroupActions* out);
  void OnReady(PeerId control, const GroupReady& ready, TimeUs now, GroupActions* out);
  void OnFailed(PeerId control, const GroupFailed& failed, TimeUs now, GroupActions* out);
  void OnControlDown(PeerId control, const std::string& reason, TimeUs now, GroupActions* out);

  void OnStepsHello(PeerId steps, const StepsHello& hello, TimeUs now, GroupActions* out);
  void OnStepsDown(PeerId steps, const std::string& reason, TimeUs now, GroupActions* out);
  // Checks a rank's result. Rank 0's goes to the core; the others only show that their rank lives.
  std::optional<StepDone> OnResult(PeerId steps, StepResult result, TimeUs now, GroupActions* out);

  // The core sends this plan: the Steps streams of all ranks, by rank; empty when the epoch is
  // over.
  std::vector<PeerId> OnPlan(GroupId group, const StepPlan& plan, TimeUs now);
  // The core ends an epoch.
  void OnAbort(const GroupAbort& abort, TimeUs now, GroupActions* out);
  // Heartbeats, stalls and set-up limits. Call each tick_us.
  void OnTick(TimeUs now, GroupActions* out);

  // Another term: every group ends and forms again with epochs from 1.
  void SetTerm(TermId term, TimeUs now, GroupActions* out);

  // Steps whose result of any rank is missing.
  int32_t StepsInFlight() const;
  // From the plan's sending to rank 0's result, of the last OnResult that returned a StepDone.
  int64_t last_step_us() const { return last_step_us_; }
  const ClusterFacts& facts() const { return facts_; }
  WorkerGroupStats Stats() const;

 private:
  struct Worker {
    Hello hello;
    std::optional<GroupId> group;
    int32_t rank = 0;
    Phase phase = Phase::kUnspecified;
    uint64_t progress = 0;
    TimeUs beat_us = 0;       // Last heartbeat.
    TimeUs phase_us = 0;      // Since when in this phase.
    TimeUs progress_us = 0;   // Last sign of progress.
    TimeUs free_from_us = 0;  // Not seated before.
    int32_t failures = 0;     // Groups in a row that it was in and that never worked.
  };
  struct Rank {
    PeerId control;
    std::optional<PeerId> steps;
    bool ready = false;
    StepId next_result;  // The step whose result comes next.
  };
  struct Group {
    EpochId epoch;
    std::vector<Rank> ranks;
    GroupLimits limits;
    bool up = false;
    TimeUs formed_us = 0;
    TimeUs up_us = 0;
    StepId next_plan;            // Plans sent so far.
    std::deque<TimeUs> sent_us;  // Of the plans whose result rank 0 owes.
  };

  absl::Status CheckFacts(const Hello& hello) const;
  void FormGroups(TimeUs now, GroupActions* out);
  void Form(const std::vector<PeerId>& controls, TimeUs now, GroupActions* out);
  void ComeUp(GroupId id, TimeUs now, GroupActions* out);
  // `rank` -1: no one in particular.
  void Lose(GroupId id, int32_t rank, const std::string& reason, TimeUs now, GroupActions* out);
  // What every end of a group does: its streams and ranks learn of it, its workers are free.
  void Dissolve(const Group& group, const std::string& reason, TimeUs now, GroupActions* out);
  // Counts the loss of a group against its workers, and when they may be seated again.
  void HoldBack(const Group& group, int32_t lost_rank, bool worked, TimeUs now);
  void NoteLoss(const std::string& who, const std::string& reason, bool worked);
  // The seat of a Control peer if (term, epoch, rank) are its own; else counts a stale message.
  std::optional<GroupId> SeatOf(PeerId control, TermId term, EpochId epoch, int32_t rank);
  // Why this worker is taken for lost, or nullopt.
  std::optional<std::string> LossOf(const Worker& worker, TimeUs now) const;
  void UpdateFacts();

  const WorkerGroupOptions options_;
  TermId term_;
  uint64_t epochs_ = 0;
  int32_t group_ids_ = 0;
  TimeUs last_tick_us_ = 0;
  int64_t last_step_us_ = 0;
  std::map<PeerId, Worker> workers_;  // By Control peer: in order of arrival.
  std::map<GroupId, Group> groups_;   // Forming and up.
  std::map<PeerId, std::pair<GroupId, int32_t>> steps_peers_;  // Of live epochs: group and rank.
  ClusterFacts facts_;
  WorkerGroupStats stats_;
  std::string loss_kind_;  // The last loss' reason without its numbers.
};

}  // namespace fathom::scheduler
