// scheduler/membership/worker_group.h: the workers, the group that each is placed in (its seat),
// and whether they are alive. The class forms a group when tp * pp matching workers of one host are
// free, gives it an epoch that was never used in the term, waits until every rank is ready and
// listens, watches it, and ends it at the first sign of a loss. The surviving workers are then free
// for a new group with a new epoch. Workers on GPUs of several hosts form a group only if their
// --rank says that they belong together. It also knows what each rank does (Reports), how the start
// of each group went (ClusterFacts::starts), and why workers are in no group (waiting). Pure: no
// IO, no clock. Thread: the driver's. REQUIRES: `now` never decreases.
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
#include "cluster/rank_report.h"
#include "common/group_shape.h"
#include "common/status.h"
#include "common/types.h"
#include "scheduler/core/events.h"
#include "scheduler/membership/rank_times.h"

namespace fathom::scheduler {

struct WorkerGroupOptions {
  int64_t heartbeat_silence_us = kSilenceUs;
  // The progress word of the rank that the others wait for did not change for so long inside a
  // step.
  int64_t stall_us = 10'000'000;
  // The same for a GPU that tells its last meeting with its peers: it has two in each layer, while
  // a CPU may be long in one op.
  int64_t device_stall_us = 4'000'000;
  int64_t loading_us = 600'000'000;    // The longest time in LOADING or CAPTURING.
  int64_t connecting_us = 30'000'000;  // The longest time in another phase before the group is up.
  // A rank that ended its group waits this long before it is placed in a group again. If several
  // groups in a row are lost and none of them worked, all their ranks wait, twice as long each
  // time. After a single loss the surviving ranks do not wait.
  int64_t retry_us = 200'000;
  int64_t retry_max_us = 30'000'000;
  int64_t healthy_us = 10'000'000;  // A group has worked if it was up this long or did a step.
  // The first line about a group whose start is slow, or about workers without a group, comes after
  // this time; then the time between two lines doubles up to note_max_us.
  int64_t note_us = 5'000'000;
  int64_t note_max_us = 60'000'000;
  // How often OnTick is called. A late call moves all deadlines by its delay.
  int64_t tick_us = 100'000;
};

// What the driver must do, in the order of the members.
struct GroupActions {
  std::vector<std::pair<PeerId, std::variant<GroupSeat, GroupExchange, Abort>>> messages;
  std::vector<std::pair<PeerId, absl::Status>> closes;
  std::vector<GroupLost> lost;
  std::vector<GroupUp> up;
  std::vector<GroupDrain> drains;  // Groups that are up and have a worker that leaves.
  std::vector<std::string> log;  // One line for each group that is up or ends, and what is unusual.
};

inline bool IsLoading(Phase phase) {
  return phase == Phase::kLoading || phase == Phase::kCapturing;
}

struct WorkerGroupStats {
  int32_t workers = 0;
  int32_t groups_up = 0;
  uint64_t groups_formed_total = 0;
  uint64_t groups_lost_total = 0;
  uint64_t stale_epoch_rejected_total = 0;  // Results and messages of another term, epoch or rank.
  std::string last_loss;  // The last lost group: which rank, why, and what it did.
  // Free workers would fill a group, but their hosts keep them from forming one. This and the next
  // as of the last OnTick.
  bool apart = false;
  int64_t longest_still_us = 0;  // The longest time without progress of a rank inside a step.
  int32_t losses_alike = 0;  // Consecutive losses of groups that never worked, for the same reason.
};

// The times of a rank of a group that is up.
struct RankLoad {
  GroupId group;
  int32_t rank = 0;
  RankTime time;
};

class WorkerGroups {
 public:
  WorkerGroups(const WorkerGroupOptions& options, TermId term) : options_(options), term_(term) {}

  // The first message of a worker on Control. The worker is refused (closed, with the reason) if
  // its facts are impossible or if its model differs from that of the registered workers.
  void OnHello(PeerId control, Hello hello, TimeUs now, GroupActions* out);
  // The first heartbeat in Phase::kDraining asks for the drain of the worker's group.
  void OnHeartbeat(PeerId control, const Heartbeat& beat, TimeUs now, GroupActions* out);
  void OnExchange(PeerId control, GroupExchange exchange, GroupActions* out);
  void OnReady(PeerId control, const GroupReady& ready, TimeUs now, GroupActions* out);
  void OnFailed(PeerId control, const GroupFailed& failed, TimeUs now, GroupActions* out);
  void OnControlDown(PeerId control, const std::string& reason, TimeUs now, GroupActions* out);

  void OnStepsHello(PeerId steps, const StepsHello& hello, TimeUs now, GroupActions* out);
  void OnStepsDown(PeerId steps, const std::string& reason, TimeUs now, GroupActions* out);
  // Checks the result of a rank. The answering rank's result (common/group_shape.h) is returned for
  // the core; the others only show that their rank is alive.
  std::optional<StepDone> OnResult(PeerId steps, StepResult result, TimeUs now, GroupActions* out);

  // The core sends this plan. Returns the Steps streams of all ranks, ordered by rank; empty if the
  // epoch has ended.
  std::vector<PeerId> OnPlan(GroupId group, const StepPlan& plan, TimeUs now);
  // The core has no more work for a group that drains: its epoch ends without a loss. The workers
  // that leave end then, and the others wait for a group.
  void OnDrained(const GroupDrained& drained, TimeUs now, GroupActions* out);
  // The core ends an epoch.
  void OnAbort(const GroupAbort& abort, TimeUs now, GroupActions* out);
  // Checks heartbeats, stalls and the limits of set-up. Must be called every tick_us.
  void OnTick(TimeUs now, GroupActions* out);

  // A new term: every group ends, and groups form again with epochs from 1.
  void SetTerm(TermId term, TimeUs now, GroupActions* out);

  // Steps for which the result of at least one rank is missing.
  int32_t StepsInFlight() const;
  // The time from sending the plan to the answering rank's result, for the last OnResult that
  // returned a StepDone.
  int64_t last_step_us() const { return last_step_us_; }
  const ClusterFacts& facts() const { return facts_; }
  WorkerGroupStats Stats() const;
  std::vector<RankLoad> Loads() const;
  // What each rank of each group does, by its last heartbeat; at most kRankReportsMax of them.
  std::vector<RankReport> Reports(TimeUs now) const;
  // Why workers are in no group, or what the start of a group waits for, as of the last OnTick; "":
  // neither.
  const std::string& waiting() const { return waiting_; }

 private:
  struct Worker {
    Hello hello;
    std::optional<GroupId> group;
    int32_t rank = 0;
    Phase phase = Phase::kUnspecified;
    uint64_t progress = 0;
    uint64_t collective = 0;  // Collectives that its rank has begun in the epoch.
    StepId step;              // As in the last heartbeat, like `work`.
    RankWork work;
    std::vector<StartMark> startup;
    TimeUs started_us = 0;    // When its process started, by this process's clock.
    bool was_seated = false;  // It was in a group that came up.
    TimeUs beat_us = 0;       // Time of the last heartbeat.
    TimeUs phase_us = 0;      // Start of the present phase.
    TimeUs progress_us = 0;   // Time of the last sign of progress.
    TimeUs free_from_us = 0;  // The worker is placed in no group before this time.
    int32_t failures = 0;     // Consecutive groups of this worker that never worked.
  };
  struct Rank {
    PeerId control;
    std::optional<PeerId> steps;
    bool ready = false;
    TimeUs ready_us = 0;
    StepId next_result;  // The step of the next result.
  };
  struct Group {
    EpochId epoch;
    GroupShape shape;
    std::vector<Rank> ranks;
    GroupLimits limits;
    bool up = false;
    bool draining = false;  // The core was asked to drain it.
    TimeUs formed_us = 0;
    TimeUs up_us = 0;
    StepId next_plan;            // Plans sent so far.
    std::deque<TimeUs> sent_us;  // Of the plans that the answering rank has not answered.
    GroupStart start;            // Set when the group comes up.
    RankTimes times{shape};
  };

  absl::Status CheckFacts(const Hello& hello) const;
  // Logs how an accepted worker differs from those that are registered.
  void NoteDifference(const Hello& hello, GroupActions* out) const;
  void FormGroups(TimeUs now, GroupActions* out);
  void FormAcrossHosts(TimeUs now, GroupActions* out);
  bool IsFree(const Worker& worker, TimeUs now) const;
  void Form(const std::vector<PeerId>& controls, TimeUs now, GroupActions* out);
  void ComeUp(GroupId id, TimeUs now, GroupActions* out);
  // Asks the core to drain a group that is up and has a worker that leaves; once for each epoch.
  void DrainIfLeft(GroupId id, GroupActions* out);
  // The start of a group that comes up now.
  GroupStart StartOf(GroupId id, const Group& group, TimeUs now);
  // `rank` -1: no particular rank. `doing`: what the ranks did, if the lost one is unknown by now.
  void Lose(GroupId id, int32_t rank, const std::string& reason, TimeUs now, GroupActions* out,
            const std::optional<std::vector<RankReport>>& doing = std::nullopt);
  // The common part of every end of a group: its streams and ranks are told, and its workers are
  // free.
  void Dissolve(const Group& group, const std::string& reason, TimeUs now, GroupActions* out);
  // Counts the loss of a group for its workers and sets when they may be placed in a group again.
  void HoldBack(const Group& group, int32_t lost_rank, bool worked, TimeUs now);
  void NoteLoss(const std::string& who, const std::string& reason, const std::string& did,
                bool worked);
  std::vector<RankReport> ReportsOf(GroupId id, const Group& group, TimeUs now) const;
  int32_t WaitsFor(const Group& group, int32_t rank, int64_t still_us) const;
  // How long a rank of a group has been without progress inside a step; 0: in none.
  int64_t StillUs(const Group& group, int32_t rank, TimeUs now) const;
  // What the start of a group waits for.
  std::string StartText(GroupId id, const Group& group, TimeUs now) const;
  // Why free workers are in no group. Sets `*apart` (WorkerGroupStats).
  std::vector<std::string> FreeTexts(TimeUs now, bool* apart) const;
  // Renews waiting_, and logs it now and then.
  void NoteWaiting(TimeUs now, GroupActions* out);
  // The group of a Control peer if (term, epoch, rank) match its seat. Otherwise counts a stale
  // message.
  std::optional<GroupId> SeatOf(PeerId control, TermId term, EpochId epoch, int32_t rank);
  // The step and the stage in which a rank is. A rank may wait for those at an earlier place.
  static std::pair<StepId, int32_t> PlaceOf(const Group& group, int32_t rank);
  // The rank that is behind all others, by its place and then by its collectives: the one that they
  // wait for. `rank` itself, if no other one is behind it.
  int32_t RankBehindAll(const Group& group, int32_t rank) const;
  // Whether a change of its progress word means a meeting with its peers on the device.
  static bool TellsMeetings(const Worker& worker);
  // The reason why this worker counts as lost, or nullopt.
  std::optional<std::string> LossOf(const Worker& worker, TimeUs now) const;
  void UpdateFacts();

  const WorkerGroupOptions options_;
  TermId term_;
  uint64_t epochs_ = 0;
  int32_t group_ids_ = 0;
  TimeUs last_tick_us_ = 0;
  int64_t last_step_us_ = 0;
  std::map<PeerId, Worker> workers_;  // By Control peer, in the order of arrival.
  std::map<GroupId, Group> groups_;   // Groups that are forming and groups that are up.
  // In live epochs: group and rank of each Steps peer.
  std::map<PeerId, std::pair<GroupId, int32_t>> steps_peers_;
  ClusterFacts facts_;
  WorkerGroupStats stats_;
  std::string loss_kind_;  // The reason of the last loss without its numbers.
  std::string waiting_;
  TimeUs next_note_us_ = 0;  // 0: nothing waits.
  int64_t note_wait_us_ = 0;
};

}  // namespace fathom::scheduler
