#include "tests/sim/timed/timed_world.h"

#include <algorithm>
#include <ctime>
#include <utility>

namespace fathom::sim {
namespace {

// CPU time of this thread: other programs of the machine do not count.
double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

TimedWorld::TimedWorld(TimedOptions options) : options_(std::move(options)), rng_(options_.seed) {
  const int32_t cores = options_.round_robin ? options_.groups : 1;
  cores_.resize(static_cast<size_t>(cores));
  for (Core& core : cores_) core.core = std::make_unique<scheduler::SchedulerCore>(options_.core);
  for (size_t i = 0; i < cores_.size() && options_.tenants; ++i) {
    Feed(i, scheduler::TenantsChanged{*options_.tenants});
  }
  for (int32_t i = 0; i < options_.routers; ++i) routers_.push_back(PeerId{next_peer_++});
  for (int32_t i = 0; i < options_.groups; ++i) {
    groups_.push_back({.id = GroupId{i}, .core = static_cast<size_t>(i % cores)});
    BringUp(static_cast<size_t>(i));
  }
  for (size_t i = 0; i < options_.traffic.size(); ++i) {
    ++open_;
    At(options_.traffic[i].at_us, [this, i] { StartTurn(i, 0, {}); });
  }
  if (options_.faults_until_us > 0) NextFault();
}

void TimedWorld::Run() {
  while (open_ > 0 && failures_.empty() && RunNext(options_.end_us)) {
  }
  report_.over_us = now_;
  if (!failures_.empty() || open_ > 0) {
    if (open_ > 0 && options_.end_us == INT64_MAX && failures_.empty()) {
      Fail(fmt::format("{} conversations never end", open_));
    }
    return;
  }
  // Late results and lost groups that come back, then until the records expire.
  const TimeUs settled_us = now_ + options_.away_us_max + options_.core.record_keep_us;
  while (failures_.empty() && RunNext(settled_us)) {
  }
  now_ = std::max(now_, settled_us);
  CheckEmpty();
}

void TimedWorld::CheckEmpty() {
  for (size_t i = 0; i < cores_.size(); ++i) {
    Feed(i, scheduler::Tick{});
    const scheduler::CoreStats stats = cores_[i].core->Stats();
    if (stats.requests_running + stats.requests_waiting + stats.sessions != 0) {
      Fail(fmt::format("{} run, {} wait, {} records are kept at the end", stats.requests_running,
                       stats.requests_waiting, stats.sessions));
    }
    if (stats.session_bytes != 0) Fail(fmt::format("{} bytes leaked", stats.session_bytes));
    if (stats.blocks_used != 0) Fail(fmt::format("{} blocks leaked", stats.blocks_used));
    const absl::Status status = cores_[i].core->CheckInvariants();
    if (!status.ok()) Fail(std::string(Message(status)));
  }
}

scheduler::CoreStats TimedWorld::stats() const {
  scheduler::CoreStats sum;
  for (const Core& core : cores_) {
    const scheduler::CoreStats one = core.core->Stats();
    sum.preemptions_total += one.preemptions_total;
    sum.swaps_total += one.swaps_total;
    sum.overtakes_total += one.overtakes_total;
    sum.failovers_total += one.failovers_total;
    sum.replayed_tokens_total += one.replayed_tokens_total;
    sum.tokens_dropped_total += one.tokens_dropped_total;
    sum.generation_tokens_total += one.generation_tokens_total;
    sum.refused_total += one.refused_total;
    sum.blocks_total += one.blocks_total;
  }
  return sum;
}

void TimedWorld::At(TimeUs at_us, std::function<void()> run) {
  queue_.push_back({std::max(at_us, now_), next_order_++, std::move(run)});
  std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
}

TimeUs TimedWorld::Arrival(TimeUs* lane_us) {
  const auto jitter = static_cast<TimeUs>(Draw(static_cast<uint64_t>(options_.link_jitter_us) + 1));
  *lane_us = std::max(*lane_us, now_ + options_.link_us + jitter);
  return *lane_us;
}

void TimedWorld::Fail(const std::string& what) {
  if (failures_.size() < 10) failures_.push_back(fmt::format("at {} us: {}", now_, what));
}

bool TimedWorld::RunNext(TimeUs limit_us) {
  const TimeUs next_us = queue_.empty() ? INT64_MAX : queue_.front().at_us;
  TimeUs wake_us = INT64_MAX;
  size_t wakes = 0;
  for (size_t i = 0; i < cores_.size(); ++i) {
    const TimeUs due_us = cores_[i].core->NextWakeup();
    if (due_us < wake_us) wake_us = due_us, wakes = i;
  }
  if (std::min(next_us, wake_us) >= limit_us) return false;
  if (wake_us < next_us) {
    now_ = std::max(now_, wake_us);
    Feed(wakes, scheduler::Tick{});
    return true;
  }
  now_ = next_us;
  std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
  const std::function<void()> run = std::move(queue_.back().run);
  queue_.pop_back();
  run();
  return true;
}

void TimedWorld::Feed(size_t core, scheduler::Event event) {
  ++report_.events;
  const double start_s = CpuSeconds();
  scheduler::Actions actions = cores_[core].core->Step(std::move(event), now_);
  const double took_s = CpuSeconds() - start_s;
  report_.core_s += took_s;
  report_.core_event_us_max = std::max(report_.core_event_us_max, took_s * 1e6);
  Carry(core, std::move(actions));
  if (options_.check_every_events > 0 && report_.events % options_.check_every_events == 0) {
    const absl::Status status = cores_[core].core->CheckInvariants();
    if (!status.ok()) Fail(std::string(Message(status)));
  }
}

void TimedWorld::Carry(size_t core, scheduler::Actions actions) {
  // A request may be accepted and planned by one event.
  for (const auto& out : actions.accepted) OnAccepted(out.message, core);
  for (scheduler::PlanOut& out : actions.plans) {
    NoteAdmits(core, out.plan);
    SendPlan(std::move(out));
  }
  for (const auto& out : actions.aborts) Fail("the core aborts a group: " + out.reason);
  if (actions.refused.empty() && actions.frames.empty()) return;
  At(Arrival(&down_lane_us_),
     [this, refused = std::move(actions.refused), frames = std::move(actions.frames)] {
       for (const auto& out : refused) OnRefused(out.message);
       for (const auto& out : frames) OnFrame(out.message);
     });
}

}  // namespace fathom::sim
