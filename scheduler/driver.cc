#include "scheduler/driver.h"

#include <algorithm>
#include <utility>

#include "common/log.h"
#include "common/status.h"

namespace fathom::scheduler {
namespace {

constexpr int64_t kFlushUs = 200'000;  // Time for the last messages to be sent.

// The name of a message, for the error about a message on the wrong stream.
const char* NameOf(const UpMessage& message) {
  constexpr const char* kNames[] = {"PeerUp",        "Hello",      "Heartbeat",   "Submit",
                                    "Submit",        "Suspend",    "Close",       "ExplainAsk",
                                    "GroupExchange", "GroupReady", "GroupFailed", "StepsHello",
                                    "StepResult",    "PeerDown"};
  static_assert(std::size(kNames) == std::variant_size_v<UpMessage>);
  return kNames[message.index()];
}

}  // namespace

Driver::Driver(const DriverOptions& options, TermId term, const Clock* clock, Transport* transport,
               TermStore* terms, DriverMetrics* metrics, EventRecorder* recorder)
    : options_(options),
      clock_(*clock),
      transport_(*transport),
      terms_(*terms),
      metrics_(*metrics),
      recorder_(recorder),
      core_(options.core),
      groups_(options.groups, term),
      term_(term),
      loop_("scheduler's loop", clock),
      stats_line_(options.log_stats_us, clock->Now()) {
  next_beat_us_ = next_tick_us_ = clock_.Now();
}

absl::Status Driver::Run() {
  LogInfo("leading term {}", term_.value);
  while (RunOnce()) {
  }
  Drain();
  return failure_;
}

absl::Status Driver::Ready() const {
  if (stop_) return Unavailable("this scheduler drains");
  if (groups_up_ > 0) return absl::OkStatus();
  return Unavailable(
      "no group of workers is up; `waiting` of `fathom status` says what is missing");
}

bool Driver::RunOnce() {
  loop_.Turn();
  std::optional<TransportEvent> event = transport_.Next(NextDeadline());
  const TimeUs now = clock_.Now();
  if (event) Handle(*std::move(event), now);
  OnTime(now);
  UpdateMetrics(now);
  return !stop_ && failure_.ok();
}

void Driver::TakeTenants(TimeUs now) {
  while (tenants_.size() > 0) StepCore(TenantsChanged{*tenants_.Pop()}, now);
}

// ---- Incoming events ----

void Driver::Handle(TransportEvent event, TimeUs now) {
  const PeerId peer = event.peer;
  metrics_stale_ = true;
  if (auto* result = std::get_if<StepResult>(&event.message); result && workers_.contains(peer)) {
    return OnResult(peer, std::move(*result), now);
  }
  if (std::holds_alternative<PeerUp>(event.message)) {
    silent_[peer] = {event.stream, now};
    return;
  }
  if (auto* down = std::get_if<PeerDown>(&event.message)) {
    return OnDown(peer, event.stream, down->reason, now);
  }
  if (silent_.contains(peer)) return OnFirst(event, now);
  if (auto* beat = std::get_if<Heartbeat>(&event.message)) {
    if (!SeeTerm(peer, beat->term, now)) return;
    if (auto router = routers_.find(peer); router != routers_.end()) router->second.beat_us = now;
    GroupActions actions;
    groups_.OnHeartbeat(peer, *beat, now, &actions);
    return Carry(std::move(actions), now);
  }
  if (event.stream == StreamKind::kRoute) return OnRoute(event, now);
  if (event.stream == StreamKind::kControl) return OnControl(event, now);
  Refuse(
      peer,
      Invalid("{}: not expected here on {}", NameOf(event.message), StreamKindName(event.stream)),
      now);
}

void Driver::OnFirst(TransportEvent& event, TimeUs now) {
  const PeerId peer = event.peer;
  if (auto* hello = std::get_if<StepsHello>(&event.message)) {
    if (!SeeTerm(peer, hello->term, now)) return;
    silent_.erase(peer);
    workers_.emplace(peer, StreamKind::kSteps);
    GroupActions actions;
    groups_.OnStepsHello(peer, *hello, now, &actions);
    return Carry(std::move(actions), now);
  }
  auto* hello = std::get_if<Hello>(&event.message);
  if (hello == nullptr) {
    return Refuse(peer,
                  Invalid("{}: the first message on {} must be Hello", NameOf(event.message),
                          StreamKindName(event.stream)),
                  now);
  }
  if (absl::Status status = CheckHello(event.stream, *hello); !status.ok())
    return Refuse(peer, status, now);
  if (!SeeTerm(peer, hello->term_seen, now)) return;
  silent_.erase(peer);
  SendHello(std::span(&peer, 1));
  if (event.stream == StreamKind::kRoute) {
    LogInfo("router {} connected (build {})", hello->process_id, hello->build);
    routers_.emplace(peer, Router{std::move(*hello), now, {}});
    return;
  }
  LogInfo("worker {} connected (build {})", hello->process_id, hello->build);
  workers_.emplace(peer, StreamKind::kControl);
  GroupActions actions;
  groups_.OnHello(peer, std::move(*hello), now, &actions);
  Carry(std::move(actions), now);
}

absl::Status Driver::CheckHello(StreamKind stream, const Hello& hello) const {
  const Role expected = stream == StreamKind::kRoute ? Role::kRouter : Role::kWorker;
  if (hello.role != expected) {
    return Invalid("Hello.role: {} is for {}s", StreamKindName(stream),
                   expected == Role::kRouter ? "router" : "worker");
  }
  if (hello.process_id.empty()) return Invalid("Hello.process_id: empty");
  if (!SpeaksProtocol(hello)) {
    return FailedPrecondition(
        "Hello.protocol: {} speaks {} to {}, this scheduler (build {}) {} to {}; run builds that "
        "are closer to each other",
        hello.process_id, hello.protocol_min, hello.protocol_max, options_.build, kProtocolMin,
        kProtocolMax);
  }
  return absl::OkStatus();
}

bool Driver::SeeTerm(PeerId peer, TermId seen, TimeUs now) {
  if (seen <= term_) return true;
  const absl::StatusOr<TermId> term = terms_.Take(seen);
  if (!term.ok()) {
    if (term.status().code() == absl::StatusCode::kOutOfRange) {
      Refuse(peer, term.status(), now);
      return false;
    }
    failure_ = Annotate(term.status(), fmt::format("a peer has seen term {}, this is term {}",
                                                   seen.value, term_.value));
    return true;
  }
  LogWarn("a peer has seen term {}: leading term {} instead of {}", seen.value, term->value,
          term_.value);
  term_ = *term;
  GroupActions actions;
  groups_.SetTerm(term_, now, &actions);
  Carry(std::move(actions), now);
  SendHello(RouterPeers());
  SendHello(ControlPeers());
  return true;
}

void Driver::OnDown(PeerId peer, StreamKind stream, const std::string& reason, TimeUs now) {
  silent_.erase(peer);
  if (const auto router = routers_.find(peer); router != routers_.end()) {
    LogInfo("router {} gone: {}", router->second.hello.process_id, reason);
    routers_.erase(router);
    return StepCore(RouterLost{peer}, now);
  }
  if (workers_.erase(peer) == 0) return;
  GroupActions actions;
  if (stream == StreamKind::kSteps) {
    groups_.OnStepsDown(peer, reason, now, &actions);
  } else {
    groups_.OnControlDown(peer, reason, now, &actions);
  }
  Carry(std::move(actions), now);
}

void Driver::OnResult(PeerId peer, StepResult result, TimeUs now) {
  GroupActions actions;
  std::optional<StepDone> done = groups_.OnResult(peer, std::move(result), now, &actions);
  if (done) {
    metrics_.ObserveStep(groups_.last_step_us());
    return StepCore(*std::move(done), now);
  }
  Carry(std::move(actions), now);
}

void Driver::OnRoute(TransportEvent& event, TimeUs now) {
  const PeerId peer = event.peer;
  if (auto* submit = std::get_if<Submit>(&event.message)) {
    LogDebug("request {} is submitted; trace {}", submit->key.request_id,
             submit->traceparent.empty() ? "none" : submit->traceparent);
    return StepCore(Routed<Submit>{peer, std::move(*submit)}, now);
  }
  if (auto* suspend = std::get_if<Suspend>(&event.message)) {
    return StepCore(Routed<Suspend>{peer, std::move(*suspend)}, now);
  }
  if (auto* close = std::get_if<Close>(&event.message)) {
    return StepCore(Routed<Close>{peer, std::move(*close)}, now);
  }
  if (const auto* ask = std::get_if<ExplainAsk>(&event.message)) {
    Explained explained = core_.Explain(ask->key, now);
    explained.ask = ask->ask;
    return transport_.Send(peer, std::move(explained));
  }
  if (auto* bad = std::get_if<SubmitUnreadable>(&event.message)) {
    return transport_.Send(peer, Refused{bad->attempt, bad->status});
  }
  Refuse(peer, Invalid("{}: not expected here on Route", NameOf(event.message)), now);
}

void Driver::OnControl(TransportEvent& event, TimeUs now) {
  GroupActions actions;
  if (auto* exchange = std::get_if<GroupExchange>(&event.message)) {
    groups_.OnExchange(event.peer, std::move(*exchange), &actions);
  } else if (auto* ready = std::get_if<GroupReady>(&event.message)) {
    groups_.OnReady(event.peer, *ready, now, &actions);
  } else if (auto* failed = std::get_if<GroupFailed>(&event.message)) {
    groups_.OnFailed(event.peer, *failed, now, &actions);
  } else {
    return Refuse(event.peer, Invalid("{}: not expected here on Control", NameOf(event.message)),
                  now);
  }
  Carry(std::move(actions), now);
}

void Driver::Refuse(PeerId peer, const absl::Status& status, TimeUs now) {
  LogWarn("stream closed: {}", Message(status));
  transport_.Close(peer, status);
  const auto worker = workers_.find(peer);
  OnDown(peer, worker == workers_.end() ? StreamKind::kRoute : worker->second,
         std::string(Message(status)), now);
}

// ---- Actions of the two pure parts ----

void Driver::StepCore(Event event, TimeUs now) {
  metrics_stale_ = true;
  ring_.Note(event, now);
  if (recorder_ != nullptr) recorder_->Record(event, now);
  Carry(core_.Step(std::move(event), now), now);
}

void Driver::Carry(Actions actions, TimeUs now) {
  for (const PlanOut& out : actions.plans) {
    if (draining_) break;
    const std::vector<PeerId> ranks = groups_.OnPlan(out.group, out.plan, now);
    if (ranks.empty()) continue;
    metrics_.ObservePlan(out.plan);
    transport_.Send(ranks, out.plan);
  }
  for (auto& [router, accepted] : actions.accepted) {
    const auto to = routers_.find(router);
    const bool old = to != routers_.end() && CommonProtocol(to->second.hello) < kProtocol2;
    if (old && accepted.record) accepted.record->priority = 0;
    transport_.Send(router, std::move(accepted));
  }
  for (auto& [router, refused] : actions.refused) transport_.Send(router, std::move(refused));
  SendFrames(std::move(actions.frames));
  for (const std::string& line : actions.log) LogWarn("{}", line);
  for (const GroupAbort& abort : actions.aborts) {
    GroupActions group_actions;
    groups_.OnAbort(abort, now, &group_actions);
    Carry(std::move(group_actions), now);
  }
  for (const GroupDrained& drained : actions.drained) {
    GroupActions group_actions;
    groups_.OnDrained(drained, now, &group_actions);
    Carry(std::move(group_actions), now);
  }
}

void Driver::SendFrames(std::vector<Routed<Frame>> frames) {
  // Sends one message to each router; a stable sort keeps the order of a router's frames.
  std::stable_sort(
      frames.begin(), frames.end(),
      [](const Routed<Frame>& a, const Routed<Frame>& b) { return a.router < b.router; });
  for (size_t first = 0; first < frames.size();) {
    const PeerId peer = frames[first].router;
    size_t end = first;
    const auto router = routers_.find(peer);
    Frames batch{term_, {}};
    for (; end < frames.size() && frames[end].router == peer; ++end) {
      // The router is gone; its sessions continue for a while.
      if (router == routers_.end()) continue;
      Frame& frame = frames[end].message;
      ClusterStats& own = router->second.own;
      own.generation_tokens_total += frame.ids.size();
      if (frame.finish) own.prompt_tokens_total += frame.finish->usage.prompt_tokens;
      if (frame.timings) own.suspensions_total += static_cast<uint64_t>(frame.timings->suspensions);
      batch.frames.push_back(std::move(frame));
    }
    if (!batch.frames.empty()) transport_.Send(peer, std::move(batch));
    frames_since_stats_ = true;
    first = end;
  }
}

// NOLINTNEXTLINE(performance-unnecessary-value-param): messages are moved out of the argument.
void Driver::Carry(GroupActions actions, TimeUs now) {
  for (auto& [peer, message] : actions.messages) {
    std::visit([&, to = peer](auto& what) { transport_.Send(to, std::move(what)); }, message);
  }
  for (const auto& [peer, status] : actions.closes) {
    transport_.Close(peer, status);
    workers_.erase(peer);
  }
  for (const std::string& line : actions.log) LogInfo("{}", line);
  for (const GroupLost& lost : actions.lost) StepCore(lost, now);
  for (const GroupUp& up : actions.up) StepCore(up, now);
  for (const GroupDrain& drain : actions.drains) StepCore(drain, now);
  if (groups_.facts() != told_) {
    told_ = groups_.facts();
    SendHello(RouterPeers());
  }
}

void Driver::SendHello(std::span<const PeerId> peers) {
  if (peers.empty()) return;
  Hello hello;
  hello.process_id = options_.process_id;
  hello.role = Role::kScheduler;
  hello.build = options_.build;
  hello.term_seen = term_;
  hello.scheduler = SchedulerFacts{.leader = true, .term = term_, .cluster = groups_.facts()};
  transport_.Send(peers, std::move(hello));
}

std::vector<PeerId> Driver::RouterPeers() const {
  std::vector<PeerId> peers;
  for (const auto& [peer, router] : routers_) peers.push_back(peer);
  return peers;
}

std::vector<PeerId> Driver::ControlPeers() const {
  std::vector<PeerId> peers;
  for (const auto& [peer, kind] : workers_) {
    if (kind == StreamKind::kControl) peers.push_back(peer);
  }
  return peers;
}

// ---- Time ----

TimeUs Driver::NextDeadline() const {
  const TimeUs deadline = std::min({next_beat_us_, next_tick_us_, core_.NextWakeup()});
  return metrics_stale_ ? std::min(deadline, next_metrics_us_) : deadline;
}

void Driver::OnTime(TimeUs now) {
  if (now >= core_.NextWakeup()) StepCore(Tick{}, now);
  if (now >= next_tick_us_) OnTick(now);
  if (now >= next_beat_us_) Beat(now);
}

void Driver::OnTick(TimeUs now) {
  TakeTenants(now);
  const int64_t tick_us = options_.groups.tick_us;
  const int64_t late_us = now - next_tick_us_;
  next_tick_us_ = now + tick_us;
  std::vector<std::pair<PeerId, absl::Status>> closes;
  for (auto& [peer, silent] : silent_) {
    if (late_us > tick_us) silent.since_us = std::min(now, silent.since_us + late_us);
    if (now - silent.since_us <= options_.hello_us) continue;
    closes.emplace_back(
        peer, DeadlineExceeded("no first message on {} within {} ms", StreamKindName(silent.stream),
                               options_.hello_us / 1000));
  }
  for (auto& [peer, router] : routers_) {
    if (late_us > tick_us) router.beat_us = std::min(now, router.beat_us + late_us);
    if (now - router.beat_us <= options_.groups.heartbeat_silence_us) continue;
    closes.emplace_back(
        peer, DeadlineExceeded("router {}: no heartbeat for {} ms", router.hello.process_id,
                               (now - router.beat_us) / 1000));
  }
  for (const auto& [peer, status] : closes) Refuse(peer, status, now);
  GroupActions actions;
  groups_.OnTick(now, &actions);
  Carry(std::move(actions), now);
}

void Driver::Beat(TimeUs now) {
  if (now >= stats_line_.next_us()) {
    if (const auto line = stats_line_.Take(core_.Stats(), now)) LogInfo("{}", *line);
  }
  next_beat_us_ = now + options_.heartbeat_us;
  const Phase phase = groups_.StepsInFlight() > 0 ? Phase::kStepping : Phase::kIdle;
  const Heartbeat beat{.term = term_, .hears_leader = true, .phase = phase};
  if (const auto controls = ControlPeers(); !controls.empty()) transport_.Send(controls, beat);
  if (routers_.empty()) return;
  transport_.Send(RouterPeers(), beat);
  SendStats(core_.Stats());
}

void Driver::SendStats(const CoreStats& stats) {
  frames_since_stats_ = false;
  const WorkerGroupStats groups = groups_.Stats();
  const std::vector<RankReport> reports = groups_.Reports(clock_.Now());
  for (const auto& [peer, router] : routers_) {
    ClusterStats own = router.own;
    own.requests_running = stats.requests_running;
    own.requests_waiting = stats.requests_waiting;
    own.blocks_total = stats.blocks_total;
    own.blocks_used = stats.blocks_used;
    own.groups = stats.groups;
    own.last_loss = groups.last_loss;
    own.losses_alike = groups.losses_alike;
    own.waiting = groups_.waiting();
    own.apart = groups.apart;
    own.waiting_by = stats.waiting_by_limit;
    own.step_tokens = metrics_.step_tokens();
    own.ranks = reports;
    transport_.Send(peer, own);
  }
}

void Driver::UpdateMetrics(TimeUs now) {
  if (!metrics_stale_ || (now < next_metrics_us_ && groups_.StepsInFlight() > 0)) return;
  const CoreStats stats = core_.Stats();
  metrics_.Update(stats, groups_.Stats(), transport_.Stats(), term_, routers_.size());
  metrics_.UpdateRanks(groups_.Loads());
  groups_up_ = stats.groups;
  if (recorder_ != nullptr) {
    metrics_.UpdateRecording(recorder_->recorded(), recorder_->unrecorded());
  }
  if (frames_since_stats_ && stats.requests_running == 0 && stats.requests_waiting == 0) {
    SendStats(stats);
  }
  metrics_stale_ = false;
  next_metrics_us_ = now + options_.metrics_us;
}

void Driver::Drain() {
  transport_.StopServing();
  draining_ = true;  // Results and frames are still handled; no plan is sent.
  const TimeUs steps_end = clock_.Now() + options_.drain_us;
  while (failure_.ok() && groups_.StepsInFlight() > 0 && clock_.Now() < steps_end) {
    if (auto event = transport_.Next(steps_end)) Handle(*std::move(event), clock_.Now());
  }
  metrics_.Resigned();
  const Resign resign{term_};
  transport_.Send(RouterPeers(), resign);
  transport_.Send(ControlPeers(), resign);
  const TimeUs flush_end = clock_.Now() + kFlushUs;
  while (!transport_.Flushed() && clock_.Now() < flush_end)
    transport_.Next(clock_.Now() + kFlushUs / 20);
  UpdateMetrics(clock_.Now());
  LogInfo("resigned term {}", term_.value);
}

}  // namespace fathom::scheduler
