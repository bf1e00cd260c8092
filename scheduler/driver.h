// scheduler/driver.h: the only thread of the scheduler: transport.Next -> worker groups or
// core.Step -> transport.Send. It converts the messages of the streams into events of the two pure
// parts and carries out their actions; it has no policy of its own. It obeys the highest term: if a
// peer has seen a higher term, the driver takes a new term above that. Thread: all calls come from
// one thread, except where a comment says otherwise. docs/ARCHITECTURE.md, "Life of a request".
#pragma once

#include <atomic>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/inbox.h"
#include "common/loop_watch.h"
#include "common/status.h"
#include "scheduler/core/scheduler_core.h"
#include "scheduler/driver_metrics.h"
#include "scheduler/membership/worker_group.h"
#include "scheduler/recorder/event_recorder.h"
#include "scheduler/recorder/event_ring.h"
#include "scheduler/stats_line.h"
#include "scheduler/term_store.h"
#include "scheduler/transport/transport.h"

namespace fathom::scheduler {

struct DriverOptions {
  CoreOptions core;
  WorkerGroupOptions groups;
  std::string process_id;
  std::string build;
  int64_t heartbeat_us = kHeartbeatUs;  // Between two heartbeats, and between two Stats.
  int64_t hello_us = kFirstMessageUs;   // A stream is closed if its first message takes longer.
  int64_t drain_us = 2'000'000;         // After Stop: the longest wait for steps in flight.
  int64_t metrics_us = 50'000;          // Between two updates of /metrics while steps run.
  int64_t log_stats_us = 10'000'000;    // Between two summaries in the log; 0: none.
};

class Driver {
 public:
  // All pointers must outlive the driver. `term` is the first term, taken from `terms`. `recorder`,
  // if not null, gets every event of the core.
  Driver(const DriverOptions& options, TermId term, const Clock* clock, Transport* transport,
         TermStore* terms, DriverMetrics* metrics, EventRecorder* recorder = nullptr);

  // Returns after Stop. Returns UNAVAILABLE if a peer has seen a higher term and the term store
  // gives no new one, because the scheduler must not lead then. In both cases the steps in flight
  // are finished and the peers get a Resign.
  absl::Status Run();

  // One iteration of Run: waits for an event or the next deadline and handles it. Returns false
  // when Run would return.
  bool RunOnce();

  // The shares and limits of tenants from now on. Noticed with the next tick. Any thread.
  // False: the driver's thread did not take the earlier ones; try again.
  bool SetTenants(TenantTable table) { return tenants_.TryPush(std::move(table)); }

  // Any thread; async-signal-safe. Noticed within heartbeat_us.
  void Stop() { stop_ = true; }

  // OK: this scheduler leads, and a group takes work. Any thread.
  absl::Status Ready() const;
  // Whether the driver's thread turns. Any thread.
  const LoopWatch& loop() const { return loop_; }
  // The last events of the core.
  const EventRing& events() const { return ring_; }

 private:
  struct Router {
    Hello hello;
    TimeUs beat_us = 0;
    ClusterStats own;  // The router's own counters; gauges are set when it is sent.
  };
  struct Silent {
    StreamKind stream;
    TimeUs since_us = 0;
  };

  void Handle(TransportEvent event, TimeUs now);
  void OnFirst(TransportEvent& event, TimeUs now);
  void OnRoute(TransportEvent& event, TimeUs now);
  void OnControl(TransportEvent& event, TimeUs now);
  void OnDown(PeerId peer, StreamKind stream, const std::string& reason, TimeUs now);
  void OnResult(PeerId peer, StepResult result, TimeUs now);
  absl::Status CheckHello(StreamKind stream, const Hello& hello) const;
  // Handles that `peer` has seen this term. Returns false if the term is not credible and the peer
  // was refused.
  bool SeeTerm(PeerId peer, TermId seen, TimeUs now);

  void TakeTenants(TimeUs now);
  void StepCore(Event event, TimeUs now);
  void Carry(Actions actions, TimeUs now);
  void SendFrames(std::vector<Routed<Frame>> frames);
  void Carry(GroupActions actions, TimeUs now);
  void Refuse(PeerId peer, const absl::Status& status, TimeUs now);

  TimeUs NextDeadline() const;
  void OnTime(TimeUs now);
  void OnTick(TimeUs now);
  void Beat(TimeUs now);
  // Sent with every heartbeat, and when the last request has ended, so that a router's statistics
  // do not show a finished request as running.
  void SendStats(const CoreStats& stats);
  void SendHello(std::span<const PeerId> peers);
  // The routers, and the Control streams of workers, that have sent a Hello.
  std::vector<PeerId> RouterPeers() const;
  std::vector<PeerId> ControlPeers() const;
  void UpdateMetrics(TimeUs now);
  void Drain();

  const DriverOptions options_;
  const Clock& clock_;
  Transport& transport_;
  TermStore& terms_;
  DriverMetrics& metrics_;
  EventRecorder* const recorder_;  // nullptr: recording is off.
  EventRing ring_;
  SchedulerCore core_;
  WorkerGroups groups_;
  TermId term_;
  absl::Status failure_;  // The error with which Run must return.
  std::atomic<bool> stop_ = false;
  std::atomic<int32_t> groups_up_ = 0;  // As of the last UpdateMetrics.
  LoopWatch loop_;
  Inbox<TenantTable> tenants_{4};
  bool draining_ = false;            // Plans are no longer sent.
  std::map<PeerId, Silent> silent_;  // Streams whose first message has not come.
  std::map<PeerId, Router> routers_;
  std::map<PeerId, StreamKind> workers_;  // Control and Steps peers whose first message came.
  ClusterFacts told_;                     // The facts that routers were sent last.
  TimeUs next_beat_us_ = 0;
  TimeUs next_tick_us_ = 0;
  TimeUs next_metrics_us_ = 0;
  bool metrics_stale_ = true;
  StatsLine stats_line_;
  bool frames_since_stats_ = false;
};

}  // namespace fathom::scheduler
