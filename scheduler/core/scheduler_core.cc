#include "scheduler/core/scheduler_core.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/check.h"
#include "common/reason.h"
#include "scheduler/core/core_impl.h"

namespace fathom::scheduler {
namespace {

std::unique_ptr<Policy> PolicyNamed(const std::string& name, const TenantTable* tenants) {
  std::unique_ptr<Policy> policy = MakePolicy(name, tenants);
  FATHOM_CHECK(policy != nullptr, "no policy '{}'", name);
  return policy;
}

// The first sequence that has not ended, else the one that ended last.
const Sequence& SlowestOf(const Session& session, TimeUs now) {
  const Sequence* slowest = &session.sequences.front();
  for (const Sequence& each : session.sequences) {
    if (!each.finished()) return each;
    if (each.stamps.At(now).WholeUs() > slowest->stamps.At(now).WholeUs()) slowest = &each;
  }
  return *slowest;
}

}  // namespace

SchedulerCore::SchedulerCore(const CoreOptions& options) : impl_(std::make_unique<Impl>(options)) {}
SchedulerCore::~SchedulerCore() = default;
Actions SchedulerCore::Step(Event event, TimeUs now) { return impl_->Step(std::move(event), now); }
Explained SchedulerCore::Explain(const SessionKey& key, TimeUs now) const {
  return impl_->Explain(key, now);
}
TimeUs SchedulerCore::NextWakeup() const { return impl_->NextWakeup(); }
CoreStats SchedulerCore::Stats() const { return impl_->Stats(); }
absl::Status SchedulerCore::CheckInvariants() const { return impl_->CheckInvariants(); }

SchedulerCore::Impl::Impl(const CoreOptions& options)
    : options_(options),
      admission_(options.waiting_requests_max, options.waiting_tokens_max),
      policy_(PolicyNamed(options.policy, &admission_.table())),
      shares_(&admission_.table(), policy_->gives_shares()),
      waiting_(options.model_wait_us),
      prefixes_({options.prefix_caching, options.prefixes_across_tenants}),
      sessions_({.session_memory_bytes_max = options.session_memory_bytes_max,
                 .record_keep_us = options.record_keep_us,
                 .router_grace_us = options.router_grace_us,
                 .sequences_max = options.sequences_max},
                this, &actions_) {}

Actions SchedulerCore::Impl::Step(Event event, TimeUs now) {
  FATHOM_CHECK(now >= now_, "time went back from {} to {}", now_, now);
  now_ = now;
  sessions_.SetTime(now);
  shares_.SetTime(now);
  sessions_.ExpireTimers();
  for (Sequence* sequence : waiting_.Expire(now_)) FailWithoutModel(*sequence);
  if (unfit_check_us_ != 0 && unfit_check_us_ <= now_) FailUnfit();
  std::visit([this](auto& e) { On(std::move(e)); }, event);
  sessions_.Deliver();
  PlanAll();
  TellDrained();
  NoteLimits();
  forecast_.NoteWaiting(waiting_.size() > waiting_.held_size(), now_);
  sessions_.EvictOverLimit();
  return std::exchange(actions_, {});
}

void SchedulerCore::Impl::On(TenantsChanged event) {
  admission_.SetTable(std::move(event.table), now_);
  shares_.TableChanged();
  admission_.ForEachRunning([this](const std::string& tenant) { HoldOrNot(tenant); });
}

void SchedulerCore::Impl::FailUnfit() {
  unfit_check_us_ = 0;
  if (groups_.empty()) return;  // GroupUp sets the time again.
  std::vector<std::pair<Sequence*, absl::Status>> unfit;
  waiting_.ForEach([&](Sequence& sequence) {
    absl::Status status = placement_.CheckFits(sequence.session->record);
    if (!status.ok()) unfit.emplace_back(&sequence, std::move(status));
  });
  for (const auto& [sequence, status] : unfit) sessions_.Fail(*sequence, status);
}

void SchedulerCore::Impl::FailWithoutModel(Sequence& sequence) {
  if (sequence.finished()) return;  // It ended together with another one of its request.
  const Session& session = *sequence.session;
  const FingerprintSpan& last = *SpanOf(sequence);
  const Group& now = *groups_.begin()->second;
  ++counters_.model_changes_total;
  absl::Status status = FailedPrecondition(
      "request {}: its {} tokens are of {}, and the cluster now serves {}; an answer of two models "
      "would be of neither. No group of the first came back within {} s (--model-wait); send the "
      "request again under a new id, or start workers with the model that it began with",
      session.record.key.request_id, sequence.record().ids.size(), ToText(last.kind),
      ToText(now.kind), options_.model_wait_us / 1'000'000);
  sessions_.AddLog(std::string(Message(status)));
  sessions_.Fail(sequence, WithReason(std::move(status), Reason::kModelChanged));
}

Explained SchedulerCore::Impl::Explain(const SessionKey& key, TimeUs now) const {
  const Session* session = sessions_.Find(key);
  if (session == nullptr) return {};
  const Sequence& sequence = SlowestOf(*session, now);
  const bool waits = std::holds_alternative<WaitingState>(sequence.state);
  int32_t generated = 0;
  for (const SequenceRecord& each : session->record.sequences) {
    generated += static_cast<int32_t>(each.ids.size());
  }
  return {
      .found = true,
      .timings = sequence.stamps.At(now, waits ? waiting_.WaitedUs(sequence, now) : WaitTimes{}),
      .prompt_tokens = session->prompt_tokens(),
      .generated_tokens = generated,
      .max_tokens = session->record.request.stop.max_tokens};
}

TimeUs SchedulerCore::Impl::NextWakeup() const {
  const TimeUs unfit_us =
      unfit_check_us_ != 0 ? unfit_check_us_ : std::numeric_limits<TimeUs>::max();
  return std::min({sessions_.NextTimeUs(), waiting_.NextTimeUs(), unfit_us,
                   waiting_.size() > 0 ? placement_.NextTimeUs(now_) : INT64_MAX});
}

CoreStats SchedulerCore::Impl::Stats() const {
  CoreStats stats = counters_;
  static_cast<SessionStats&>(stats) = sessions_.Stats();
  stats.requests_waiting = waiting_.size();
  stats.waiting_by_limit = waiting_.CountByLimit();
  stats.refused_by = admission_.refused();
  stats.retries_kept_total = admission_.promises().kept;
  stats.retries_broken_total = admission_.promises().broken;
  stats.groups = static_cast<int32_t>(groups_.size());
  for (const auto& [id, group] : groups_) {
    stats.requests_running += static_cast<int32_t>(group->running.size());
    stats.blocks_total += group->kv.pool().total_blocks();
    stats.blocks_used += group->kv.pool().used_blocks();
    stats.swap_blocks_total += group->swap_space.total_blocks();
    stats.swap_blocks_used += group->swap_space.used_blocks();
    stats.blocks_cached += group->kv.pool().idle_blocks();
    stats.prefix_evicted_blocks_total += group->kv.evictions_total();
  }
  return stats;
}

}  // namespace fathom::scheduler
