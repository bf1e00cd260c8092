// tests/sim/timed/timed_world.h: a cluster around the scheduler core in simulated time. Groups need
// the time of a cost model for each step (cost_model.h) and have two plans in flight, as real ones;
// messages need time; clients come by an open loop (traffic.h). Groups and routers may be lost and
// come back. The world checks the following, and Run stops at the first failure.
//   - Every plan keeps the limits of its group (timed_group.h).
//   - Epochs of a group only grow, and no plan is of a newer epoch than the group.
//   - A client gets each token once, in order, with the right value, and one end.
//   - Within a tenant, a request gets its first slot before those that were accepted later, with
//     at most `overtakes_max` exceptions.
//   - A request waits at most `wait_us_max` for its first slot.
//   - When all is over, no session, block or byte is left.
//   - SchedulerCore::CheckInvariants, every `check_every_events`.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cluster/request.h"
#include "scheduler/core/events.h"
#include "scheduler/core/scheduler_core.h"
#include "scheduler/core/tenant_limits.h"
#include "tests/sim/timed/cost_model.h"
#include "tests/sim/timed/timed_group.h"
#include "tests/sim/timed/traffic.h"

namespace fathom::sim {

struct TimedOptions {
  uint64_t seed = 1;
  scheduler::CoreOptions core;
  scheduler::GroupLimits limits;
  std::optional<scheduler::TenantTable> tenants;  // Shares and limits.
  GroupCosts costs;
  int32_t groups = 1;
  // True: every group has a core of its own, and conversations' turns go to the cores in turn. This
  // is round-robin placement. False: one core places.
  bool round_robin = false;
  int32_t routers = 2;
  TimeUs link_us = 150;  // A message between two processes, and up to `link_jitter_us` more.
  TimeUs link_jitter_us = 100;
  std::vector<Conversation> traffic;
  TimeUs end_us = INT64_MAX;  // The run ends then, if it is not over before.
  // ---- Faults: the mean time between two losses of a group, and of a router; 0: none.
  TimeUs group_loss_us = 0;
  TimeUs router_loss_us = 0;
  TimeUs faults_until_us = 0;
  TimeUs notice_us_max = 1'000'000;  // Until the core hears of a loss.
  TimeUs away_us_max = 20'000'000;   // Until a lost group is back.
  // ---- Checks
  int32_t check_every_events = 0;  // 0: never.
  int32_t overtakes_max = -1;      // -1: not checked.
  TimeUs wait_us_max = 0;          // 0: not checked.
};

// One request of a conversation, as its client sees it.
struct Call {
  size_t conversation = 0;
  int32_t turn = 0;
  std::string tenant;
  int32_t prompt_tokens = 0;
  int32_t max_tokens = 0;
  TimeUs due_us = 0;
  TimeUs first_us = 0;  // Of the first token; 0: none.
  TimeUs last_us = 0;
  TimeUs gap_us_max = 0;  // Between two tokens.
  TimeUs end_us = 0;      // 0: not over.
  int32_t tokens = 0;
  int32_t cached_tokens = 0;
  bool refused = false, failed = false;
  // ---- The world's own
  Record record;  // Emptied at the end.
  PeerId router;
  AttemptId attempt;
  size_t core = 0;
  TimeUs accepted_us = 0;  // By the core; 0: not yet.
  uint64_t place = 0;      // In the order of acceptance.
  bool seated = false;     // Had its first slot.
  int32_t overtaken_by = 0;

  bool answered() const { return end_us != 0 && !refused && !failed; }
};

struct TimedReport {
  int64_t swapped_blocks = 0;
  int64_t events = 0, steps = 0, rows = 0, decode_rows = 0;
  int64_t prompt_tokens = 0, reused_tokens = 0;  // Of first admits.
  int64_t group_losses = 0, router_losses = 0;
  TimeUs busy_us = 0;      // Of all groups.
  TimeUs wait_us_max = 0;  // For a first slot.
  double core_s = 0;       // CPU time of this program in SchedulerCore::Step.
  double core_event_us_max = 0;
  TimeUs over_us = 0;  // When the run ended.
};

class TimedWorld {
 public:
  explicit TimedWorld(TimedOptions options);

  // Until every conversation is over (or `end_us`), then until the records have expired.
  void Run();

  const std::vector<std::string>& failures() const { return failures_; }
  const TimedReport& report() const { return report_; }
  const std::vector<Call>& calls() const { return calls_; }
  scheduler::CoreStats stats() const;  // The sum over the cores of what is summed for a report.

 private:
  struct Group {
    GroupId id;
    size_t core = 0;
    EpochId epoch;
    std::unique_ptr<TimedGroup> group;  // Empty: lost.
    TimeUs busy_until_us = 0;
    TimeUs plan_lane_us = 0, result_lane_us = 0;  // When the last message of the lane arrives.
  };
  struct Core {
    std::unique_ptr<scheduler::SchedulerCore> core;
    std::map<std::string, std::set<std::pair<uint64_t, size_t>>> unseated;  // (place, call).
  };
  struct Timed {
    TimeUs at_us;
    uint64_t order;
    std::function<void()> run;
    bool operator>(const Timed& other) const {
      return at_us != other.at_us ? at_us > other.at_us : order > other.order;
    }
  };

  // ---- Machinery (timed_world.cc)
  uint64_t Draw(uint64_t below) { return rng_() % below; }
  void At(TimeUs at_us, std::function<void()> run);
  // When a message that is sent now arrives; later than the one before it in its lane.
  TimeUs Arrival(TimeUs* lane_us);
  void Fail(const std::string& what);
  // False: nothing is due before `limit_us`.
  bool RunNext(TimeUs limit_us);
  void Feed(size_t core, scheduler::Event event);
  void Carry(size_t core, scheduler::Actions actions);
  void CheckEmpty();

  // ---- Groups (timed_groups.cc)
  void BringUp(size_t index);
  void LoseGroup(size_t index);
  void SendPlan(scheduler::PlanOut out);
  void Execute(size_t index, const StepPlan& plan);
  void NoteAdmits(size_t core, const StepPlan& plan);
  void Seat(size_t core, Call& call);
  void NextFault();

  // ---- Clients (timed_clients.cc)
  void StartTurn(size_t conversation, int32_t turn, std::vector<TokenId> history);
  void Submit(size_t call, bool replay);
  void OnAccepted(const Accepted& accepted, size_t core);
  void OnRefused(const Refused& refused);
  void OnFrame(const Frame& frame);
  void End(size_t call);
  void LoseRouter(size_t index);
  Call* Attached(AttemptId attempt);

  const TimedOptions options_;
  std::mt19937_64 rng_;
  TimeUs now_ = 1;
  uint64_t next_order_ = 0;
  std::vector<Timed> queue_;  // A heap.
  std::vector<Core> cores_;
  std::vector<Group> groups_;
  std::vector<PeerId> routers_;
  std::map<PeerId, TimeUs> up_lane_us_;
  TimeUs down_lane_us_ = 0;
  int64_t next_peer_ = 1;
  uint64_t next_epoch_ = 1;
  uint64_t next_attempt_ = 1;
  uint64_t next_place_ = 1;
  size_t next_core_ = 0;
  std::vector<Call> calls_;
  std::map<AttemptId, size_t> attempts_;  // Of calls that are not over.
  int64_t open_ = 0;                      // Conversations that are not over.
  std::vector<std::string> failures_;
  TimedReport report_;
};

}  // namespace fathom::sim
