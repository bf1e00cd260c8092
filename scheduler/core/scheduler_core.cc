#include "scheduler/core/scheduler_core.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/check.h"
#include "scheduler/core/core_impl.h"
#include "scheduler/core/delivery.h"
#include "scheduler/core/record_checks.h"

namespace fathom::scheduler {
namespace {

const Policy& PolicyNamed(const std::string& name) {
  const Policy* policy = FindPolicy(name);
  FATHOM_CHECK(policy != nullptr, "no policy '{}'", name);
  return *policy;
}

}  // namespace

SchedulerCore::SchedulerCore(const CoreOptions& options) : impl_(std::make_unique<Impl>(options)) {}
SchedulerCore::~SchedulerCore() = default;
Actions SchedulerCore::Step(const Event& event, TimeUs now) { return impl_->Step(event, now); }
TimeUs SchedulerCore::NextWakeup() const { return impl_->NextWakeup(); }
CoreStats SchedulerCore::Stats() const { return impl_->Stats(); }
absl::Status SchedulerCore::CheckInvariants() const { return impl_->CheckInvariants(); }

SchedulerCore::Impl::Impl(const CoreOptions& options)
    : options_(options), policy_(PolicyNamed(options.policy)), waiting_(options.model_wait_us) {}

Actions SchedulerCore::Impl::Step(const Event& event, TimeUs now) {
  FATHOM_CHECK(now >= now_, "time went back from {} to {}", now_, now);
  now_ = now;
  ExpireTimers();
  std::visit([this](const auto& e) { On(e); }, event);
  DeliverAll();
  PlanAll();
  EvictOverLimit();
  return std::exchange(actions_, {});
}

void SchedulerCore::Impl::ExpireTimers() {
  while (Session* session = sessions_.DeadlinePassed(now_)) {
    sessions_.SetDeadline(*session, 0);
    for (Sequence& sequence : session->sequences) {
      if (!sequence.finished()) Finish(sequence, FinishReason::kDeadline);
    }
  }
  DeliverAll();  // Before their subscribers go.
  for (uint64_t number : sessions_.ExpireGrace(now_)) {
    Session* session = sessions_.Find(number);
    if (session->subscribers.empty() && !session->finished()) SuspendSession(*session);
  }
  while (Session* session = sessions_.KeepPassed(now_)) sessions_.Remove(*session);
  for (Sequence* sequence : waiting_.Expire(now_)) FailWithoutModel(*sequence);
  if (unfit_check_us_ != 0 && unfit_check_us_ <= now_) FailUnfit();
}

void SchedulerCore::Impl::FailUnfit() {
  unfit_check_us_ = 0;
  if (groups_.empty()) return;  // The next group's coming arms it again.
  std::vector<std::pair<Sequence*, absl::Status>> unfit;
  waiting_.ForEach([&](Sequence& sequence) {
    absl::Status status = FitsSomewhere(sequence.session->record);
    if (!status.ok()) unfit.emplace_back(&sequence, std::move(status));
  });
  for (auto& [sequence, status] : unfit) Fail(*sequence, std::move(status));
}

void SchedulerCore::Impl::FailWithoutModel(Sequence& sequence) {
  const Session& session = *sequence.session;
  const FingerprintSpan& last = session.record.fingerprints.back();
  const Group& now = *groups_.begin()->second;
  ++counters_.model_changes_total;
  absl::Status status = FailedPrecondition(
      "request {}: its {} tokens are of {}, and the cluster now serves {}; an answer of two models "
      "would be of neither. No group of the first came back within {} s (--model-wait); send the "
      "request again under a new id, or start workers with the model that it began with",
      session.record.key.request_id, sequence.record().ids.size(), ToText(last.kind),
      ToText(now.kind), options_.model_wait_us / 1'000'000);
  if (actions_.log.size() < kLogLinesMax) actions_.log.emplace_back(Message(status));
  Fail(sequence, Refusal(std::move(status), "MODEL_CHANGED"));
}

void SchedulerCore::Impl::DeliverAll() {
  for (uint64_t number : std::exchange(dirty_, {})) {
    Session* session = sessions_.Find(number);
    if (session == nullptr) continue;
    session->dirty = false;
    Deliver(*session, &actions_.frames);
    if (session->finished()) sessions_.UnsubscribeAll(*session);
  }
}

void SchedulerCore::Impl::EvictOverLimit() {
  while (sessions_.total_bytes() > options_.session_memory_bytes_max) {
    Session* oldest = sessions_.OldestKept();
    if (oldest == nullptr) return;  // Only live ones: they are refused at admission, not here.
    sessions_.Remove(*oldest);
  }
}

TimeUs SchedulerCore::Impl::NextWakeup() const {
  const TimeUs unfit_us =
      unfit_check_us_ != 0 ? unfit_check_us_ : std::numeric_limits<TimeUs>::max();
  return std::min({sessions_.NextTimeUs(), waiting_.NextTimeUs(), unfit_us});
}

CoreStats SchedulerCore::Impl::Stats() const {
  CoreStats stats = counters_;
  stats.requests_waiting = waiting_.size();
  stats.sessions = static_cast<int32_t>(sessions_.size());
  stats.session_bytes = sessions_.total_bytes();
  stats.groups = static_cast<int32_t>(groups_.size());
  for (const auto& [id, group] : groups_) {
    stats.requests_running += static_cast<int32_t>(group->running.size());
    stats.blocks_total += group->kv.pool().total_blocks();
    stats.blocks_used += group->kv.pool().used_blocks();
  }
  return stats;
}

absl::Status SchedulerCore::Impl::CheckInvariants() const {
  size_t running = 0, waiting = 0;
  for (const auto& [id, group] : groups_) {
    FATHOM_RETURN_IF_ERROR(CheckGroup(*group));
    running += group->running.size();
  }
  FATHOM_RETURN_IF_ERROR(waiting_.Check());
  FATHOM_RETURN_IF_ERROR(sessions_.Check());
  absl::Status status;
  sessions_.ForEach([&](const Session& session) {
    if (status.ok()) status = CheckSession(session);
    for (const Sequence& sequence : session.sequences) {
      if (sequence.running() != nullptr) ++running;
      if (std::holds_alternative<WaitingState>(sequence.state)) ++waiting;
    }
  });
  FATHOM_RETURN_IF_ERROR(status);
  // Each group counted its own once.
  size_t seated = 0;
  for (const auto& [id, group] : groups_) seated += group->running.size();
  if (running != 2 * seated) return Internal("{} sequences run, {} sit", running - seated, seated);
  if (waiting != static_cast<size_t>(waiting_.size())) {
    return Internal("{} sequences wait, {} are in the queue", waiting, waiting_.size());
  }
  if (!dirty_.empty()) return Internal("frames are owed");
  return absl::OkStatus();
}

absl::Status SchedulerCore::Impl::CheckSession(const Session& session) const {
  const std::string& id = session.record.key.request_id;
  const Request& request = session.record.request;
  if (session.sequences.size() != static_cast<size_t>(request.sequences) ||
      session.record.sequences.size() != session.sequences.size()) {
    return Internal("session {} has {} sequences of {}", id, session.sequences.size(),
                    request.sequences);
  }
  bool live = false;
  for (const Sequence& sequence : session.sequences) {
    live = live || (!sequence.finished() && !sequence.suspended());
    const SequenceRecord& record = sequence.record();
    if (record.ids.size() > static_cast<size_t>(request.stop.max_tokens)) {
      return Internal("session {} has {} tokens of {}", id, record.ids.size(),
                      request.stop.max_tokens);
    }
    if (record.logprobs.size() != (request.output.logprobs ? record.ids.size() : 0)) {
      return Internal("session {} has {} log-probabilities of {}", id, record.logprobs.size(),
                      record.ids.size());
    }
    if (sequence.finished() != (record.finish != FinishReason::kNone)) {
      return Internal("session {}'s record does not say whether it ended", id);
    }
  }
  if (live != (session.keep_until_us == 0)) {
    return Internal("session {} is {} and its keep time {}", id, live ? "live" : "not live",
                    session.keep_until_us);
  }
  if (live == session.subscribers.empty()) {
    return Internal("session {} is {} with {} subscribers", id, live ? "live" : "not live",
                    session.subscribers.size());
  }
  if (!live && session.deadline_us != 0)
    return Internal("session {} is over and has a deadline", id);
  if (session.deadline_us != 0 && session.deadline_us <= now_) {
    return Internal("session {} outlived its deadline", id);
  }
  for (const Subscriber& subscriber : session.subscribers) {
    if (subscriber.cursors.size() != session.sequences.size()) {
      return Internal("session {}: a subscriber follows {} sequences", id,
                      subscriber.cursors.size());
    }
    for (const Sequence& sequence : session.sequences) {
      const Cursor& cursor = subscriber.cursors[static_cast<size_t>(sequence.index)];
      if (!subscriber.lost && cursor.next < static_cast<int32_t>(sequence.record().ids.size())) {
        return Internal("session {}: a subscriber was not sent token {}", id, cursor.next);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace fathom::scheduler
