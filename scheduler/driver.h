// scheduler/driver.h: THE thread of the scheduler: transport.Next -> worker groups or core.Step ->
// transport.Send. Converts what streams bring into events of the two pure parts and carries out
// their actions; holds no policy. Obeys the highest term: a peer that has seen a higher one makes
// it take a new term above that. Thread: everything from one thread, but for Stop.
// docs/ARCHITECTURE.md, "Life of a request".
#pragma once

#include <atomic>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/status.h"
#include "scheduler/core/scheduler_core.h"
#include "scheduler/driver_metrics.h"
#include "scheduler/membership/worker_group.h"
#include "scheduler/recorder/event_recorder.h"
#include "scheduler/term_store.h"
#include "scheduler/transport/transport.h"

namespace fathom::scheduler {

struct DriverOptions {
  CoreOptions core;
  WorkerGroupOptions groups;
  std::string process_id;
  std::string build;
  int64_t heartbeat_us = kHeartbeatUs;  // Between ours, and between two Stats.
  int64_t hello_us = kFirstMessageUs;   // A stream without its first message is closed after this.
  int64_t drain_us = 2'000'000;         // After Stop: longest wait for steps in flight.
  int64_t metrics_us = 50'000;          // Between two updates of /metrics while steps run.
};

class Driver {
 public:
  // All must outlive it. `term` is the one to begin with, taken from `terms`. `recorder`, if any,
  // is given every event of the core.
  Driver(const DriverOptions& options, TermId term, const Clock* clock, Transport* transport,
         TermStore* terms, DriverMetrics* metrics, EventRecorder* recorder = nullptr);

  // Until Stop, or until the term store gives no new term although a peer has seen a higher one
  // (UNAVAILABLE: it must not lead). Then: steps in flight are finished, peers are told by Resign.
  absl::Status Run();

  // One turn of Run: waits for an event or the next deadline and deals with it. False: Run would
  // end.
  bool RunOnce();

  // Any thread, async-signal-safe; noticed within heartbeat_us.
  void Stop() { stop_ = true; }

 private:
  struct Router {
    Hello hello;
    TimeUs beat_us = 0;
    ClusterStats own;  // Its own counters; gauges are filled in when sent.
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
  // `peer` has seen this term. False: it was refused, for there is no such term.
  bool SeeTerm(PeerId peer, TermId seen, TimeUs now);

  void StepCore(Event event, TimeUs now);
  void Carry(Actions actions, TimeUs now);
  void SendFrames(std::vector<Routed<Frame>> frames);
  void Carry(GroupActions actions, TimeUs now);
  void Refuse(PeerId peer, const absl::Status& status, TimeUs now);

  TimeUs NextDeadline() const;
  void OnTime(TimeUs now);
  void OnTick(TimeUs now);
  void Beat(TimeUs now);
  // With every heartbeat, and when the last request has ended: who asks a router after an answer
  // does not find it still running.
  void SendStats(const CoreStats& stats);
  void SendHello(std::span<const PeerId> peers);
  // Routers, and workers' Control streams, that said hello.
  std::vector<PeerId> RouterPeers() const;
  std::vector<PeerId> ControlPeers() const;
  void UpdateMetrics(TimeUs now);
  void Drain();

  const DriverOptions options_;
  const Clock& clock_;
  Transport& transport_;
  TermStore& terms_;
  DriverMetrics& metrics_;
  EventRecorder* const recorder_;  // nullptr: nothing is recorded.
  SchedulerCore core_;
  WorkerGroups groups_;
  TermId term_;
  absl::Status failure_;  // Why Run must end.
  std::atomic<bool> stop_ = false;
  bool draining_ = false;            // Plans are no longer sent.
  std::map<PeerId, Silent> silent_;  // Streams without their first message.
  std::map<PeerId, Router> routers_;
  std::map<PeerId, StreamKind> workers_;  // Control and Steps peers that said hello.
  ClusterFacts told_;                     // What routers were told last.
  TimeUs next_beat_us_ = 0;
  TimeUs next_tick_us_ = 0;
  TimeUs next_metrics_us_ = 0;
  bool metrics_stale_ = true;
  bool frames_since_stats_ = false;
};

}  // namespace fathom::scheduler
