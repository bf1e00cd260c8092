// tests/sim/sim_world.h: a cluster around the scheduler core, with random events from a seed:
// groups that execute plans exactly as they are written, routers, clients that record what they
// get, delays, and faults. Time is simulated. The same options give the same actions; their hash is
// `action_hash()`.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cluster/request.h"
#include "scheduler/core/events.h"
#include "scheduler/core/scheduler_core.h"
#include "tests/sim/fake_group.h"

namespace fathom::sim {

// Gets every core of a world, and every event of a core with its time and its actions.
class WorldObserver {
 public:
  virtual ~WorldObserver() = default;
  // A new core without state replaces the previous one.
  virtual void OnCore(const scheduler::CoreOptions& options) = 0;
  virtual void OnEvent(const scheduler::Event& event, TimeUs now,
                       const scheduler::Actions& actions) = 0;
};

struct WorldOptions {
  WorldObserver* observer = nullptr;
  uint64_t seed = 1;
  std::string policy = "fcfs";
  int32_t run_ahead_max = 100;
  int32_t requests = 10'000;
  int32_t groups = 2;
  int32_t routers = 3;
  scheduler::GroupLimits limits{.blocks = 25,
                                .block_tokens = 4,
                                .slots = 8,
                                .step_tokens = 16,
                                .context_tokens = 80,
                                .plans_in_flight = 2,
                                .protocol = kProtocol2};
  int32_t arrival_us_max = 18'000;  // Between two requests.
  int32_t retry_us = 500'000;       // Until a refused client comes again, and up to twice it more.
  int32_t check_every_events = 2048;  // CheckInvariants.
  // In thousandths: of requests, or of the faults drawn in each simulated second.
  int32_t hang_up_permille = 250;
  int32_t abandon_permille = 50;
  int32_t close_permille = 100;
  int32_t several_permille = 0;  // Requests for 2 to 5 sequences.
  int32_t deadline_permille = 50;
  int32_t second_listener_permille = 100;
  int32_t group_loss_permille = 200;
  int32_t drain_permille = 0;         // Of groups whose worker leaves; another one comes later.
  int32_t other_kind_permille = 100;  // Of 1,000 groups that come back.
  int32_t router_loss_permille = 100;
  int32_t takeover_permille = 20;
};

struct WorldReport {
  int64_t listeners = 0, ended = 0, abandoned = 0, refused = 0, mismatched = 0;
  int64_t by_reason[8] = {};
  int64_t group_losses = 0, router_losses = 0, takeovers = 0, resumes = 0, steps = 0, events = 0;
  int64_t fingerprints_changed = 0;
  int64_t drains = 0, drained = 0;
};

class World {
 public:
  explicit World(const WorldOptions& options);

  // Runs until every request was sent and every client has its end (faults stop after the last
  // arrival), and then until the last record has expired.
  void Run();

  // The failures, in order; empty: none.
  const std::vector<std::string>& failures() const { return failures_; }
  uint64_t action_hash() const { return action_hash_; }
  const WorldReport& report() const { return report_; }
  scheduler::CoreStats stats() const { return core_->Stats(); }

 private:
  struct Spec {
    Record record;
    std::optional<int32_t> close_at;
    int32_t close_sequence = 0;
    int64_t deadline_us = 0;
    bool too_long = false;
  };
  // What a client knows of one sequence, besides its record.
  struct Flow {
    uint64_t prefix = 0;
    std::string fingerprint;
    ComputeKind kind;
    bool ended = false;
    bool end_again = false;  // Its end came in the present attempt.
  };
  // A client with its state, which includes the record that its router has.
  struct Listener {
    size_t spec = 0;
    PeerId router;
    AttemptId attempt;
    Record record;
    std::vector<Flow> flows;  // One for each sequence.
    bool accepted = false;    // Set at the first Accepted, from any attempt.
    bool attached = false;
    bool over = false;
    bool abandoned = false;
    int64_t deadline_at_us = 0;
    std::optional<size_t> hang_up_at;
    bool close_sent = false;
  };
  struct SimGroup {
    GroupId id;
    EpochId epoch;
    std::string fingerprint;
    std::unique_ptr<FakeGroup> group;  // Empty: down.
    TimeUs busy_until_us = 0;
    TimeUs cut_us = 0;  // Results after this time are lost.
  };
  struct Timed {
    TimeUs at_us;
    uint64_t order;
    std::function<void()> run;
    bool operator>(const Timed& other) const {
      return at_us != other.at_us ? at_us > other.at_us : order > other.order;
    }
  };

  // ---- Machinery (sim_world.cc)
  uint64_t Draw(uint64_t below) { return rng_() % below; }
  bool Chance(int32_t permille) { return Draw(1000) < static_cast<uint64_t>(permille); }
  void After(TimeUs delay_us, std::function<void()> run);
  // Keeps the order of the messages that one peer sends in one direction.
  void Send(uint64_t lane, std::function<void()> run);
  void Fail(std::string what);
  void NewCore();
  void Feed(scheduler::Event event);
  void Push(TimeUs at_us, std::function<void()> run);
  void Carry(const scheduler::Actions& actions);
  void RunUntil(const std::function<bool()>& done, TimeUs limit_us);
  void CheckEmpty();
  // ---- Faults
  void EverySecond();
  void BringUp(size_t index);
  void LoseGroup(size_t index);
  void DrainGroup(size_t index);
  void OnDrained(const scheduler::GroupDrained& out);
  void BringUpLater(size_t index);
  void LoseRouter(size_t index);
  void TakeOver();
  void OnPlan(const scheduler::PlanOut& out);
  void HashActions(const scheduler::Actions& actions);

  // ---- Clients (sim_clients.cc)
  void Arrive();
  Spec MakeSpec(size_t index);
  void AddListener(size_t spec);
  void Submit(size_t listener, bool key_only);
  void Reattach(size_t listener, TimeUs delay_us);
  void OnRefused(const scheduler::Routed<Refused>& out);
  void OnFrame(const scheduler::Routed<Frame>& out);
  void TakeTokens(Listener& listener, const Frame& frame);
  void TakeEnd(Listener& listener, const Frame& frame);
  void HangUp(size_t listener);
  // The listener whose present attempt this is, if it still listens.
  Listener* Attached(PeerId router, AttemptId attempt);

  const WorldOptions options_;
  std::mt19937_64 rng_;
  TimeUs now_ = 1;
  uint64_t next_order_ = 0;
  std::vector<Timed> queue_;            // A heap: the next one is first.
  std::map<uint64_t, TimeUs> lane_us_;  // When the last message of a lane arrives.

  std::unique_ptr<scheduler::SchedulerCore> core_;
  TermId term_{1};
  uint64_t next_epoch_ = 1;
  std::vector<SimGroup> groups_;
  std::vector<PeerId> routers_;  // Present stream of each; value 0: down.
  int64_t next_peer_ = 1;
  bool faults_ = true;

  std::vector<Spec> specs_;
  std::vector<Listener> listeners_;
  std::map<AttemptId, size_t> attempts_;  // Attempts are unique over all routers here.
  uint64_t next_attempt_ = 1;
  int64_t open_ = 0;  // Listeners that wait for their end.

  std::vector<std::string> failures_;
  uint64_t action_hash_ = 0;
  WorldReport report_;
};

}  // namespace fathom::sim
