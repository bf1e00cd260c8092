// The one way into each state of a sequence. Whatever ends a stay in a slot goes through Vacate.
#include <algorithm>

#include "common/check.h"
#include "scheduler/core/core_impl.h"

namespace fathom::scheduler {

SequenceFacts SchedulerCore::Impl::FactsOf(const Sequence& sequence) const {
  return {.number = sequence.number,
          .tenant = sequence.session->record.key.tenant,
          .arrival_us = sequence.session->arrival_us,
          .resumed = sequence.seated_before,
          .prompt_tokens = sequence.session->prompt_tokens(),
          .max_tokens = sequence.session->record.request.stop.max_tokens,
          .generated_tokens = static_cast<int32_t>(sequence.record().ids.size())};
}

Group* SchedulerCore::Impl::FindGroup(GroupId id) {
  auto it = groups_.find(id);
  return it == groups_.end() ? nullptr : it->second.get();
}

void SchedulerCore::Impl::Enqueue(Sequence& sequence) {
  if (unfit_check_us_ == 0 && !placement_.CheckFits(sequence.session->record).ok()) {
    unfit_check_us_ = now_ + options_.model_wait_us;
  }
  const auto& spans = sequence.session->record.fingerprints;
  WaitQueue::Kind kind;
  if (!spans.empty()) kind = WaitQueue::Kind::Of(spans.back().fingerprint, spans.back().kind);
  waiting_.Push(sequence, policy_->Push(FactsOf(sequence)), kind, !sequence.seated_before, now_);
}

void SchedulerCore::Impl::Dequeue(Sequence& sequence, bool admitted) {
  if (!std::holds_alternative<WaitingState>(sequence.state)) return;
  waiting_.Erase(sequence);
  policy_->Pop(FactsOf(sequence), admitted);
}

std::vector<BlockCopy> SchedulerCore::Impl::Seat(Group& group, Sequence& sequence) {
  const Session& session = *sequence.session;
  Dequeue(sequence, true);
  RunningState running;
  running.group = group.id;
  running.slot = group.free_slots.back();
  group.free_slots.pop_back();
  running.seat = next_seat_++;
  running.run_ahead = std::min(options_.run_ahead_max, group.limits.plans_in_flight - 1);
  running.keep = policy_->EvictionOrder(FactsOf(sequence));
  running.next_position = static_cast<int32_t>(sequence.record().ids.size());
  running.known_tokens = session.prompt_tokens() + running.next_position;
  auto reservation = group.kv.Reserve(running.known_tokens);
  FATHOM_CHECK(reservation.has_value(), "sequence {} was seated without room", sequence.number);
  running.blocks = std::move(reservation->blocks);
  running.planned_tokens = reservation->computed_tokens;
  group.running.emplace(running.keep, &sequence);
  sequence.state = std::move(running);
  if (!sequence.seated_before) queue_line_.OnFreed(now_);
  sequence.seated_before = true;
  if (sequence.first_token_us == 0) sequence.admitted_us = now_;
  return std::move(reservation->copies);
}

void SchedulerCore::Impl::Vacate(Sequence& sequence) {
  RunningState* running = sequence.running();
  FATHOM_CHECK(running != nullptr, "sequence {} has no slot", sequence.number);
  Group* group = FindGroup(running->group);
  FATHOM_CHECK(group != nullptr, "sequence {} sits in no group", sequence.number);
  group->kv.Release(running->blocks);
  group->free_slots.push_back(running->slot);
  group->released.push_back(running->slot);
  group->running.erase({running->keep, &sequence});
  sequence.state = SuspendedState{};
}

void SchedulerCore::Impl::Interrupt(Sequence& sequence) {
  Vacate(sequence);
  ++sequence.suspensions;
  ++counters_.suspensions_total;
  Enqueue(sequence);
}

void SchedulerCore::Impl::SuspendSession(Session& session) {
  for (Sequence& sequence : session.sequences) {
    if (sequence.finished()) continue;
    if (sequence.running() != nullptr) Vacate(sequence);
    Dequeue(sequence, false);
    ++sequence.suspensions;
    ++counters_.suspensions_total;
  }
  sessions_.SetDeadline(session, 0);
  sessions_.SetKeepUntil(session, now_ + options_.record_keep_us);
}

SequenceTimings SchedulerCore::Impl::TimingsOf(const Sequence& sequence) const {
  SequenceTimings timings;
  timings.suspensions = sequence.suspensions;
  const TimeUs admitted_us = sequence.admitted_us != 0 ? sequence.admitted_us : now_;
  timings.queue_us = admitted_us - sequence.session->submitted_us;
  if (sequence.first_token_us == 0) return timings;
  timings.prefill_us = sequence.first_token_us - admitted_us;
  timings.decode_us = sequence.last_token_us - sequence.first_token_us;
  return timings;
}

void SchedulerCore::Impl::Finish(Sequence& sequence, FinishReason reason) {
  FinishedState state;
  state.finish.reason = reason;
  state.finish.usage.prompt_tokens = sequence.session->prompt_tokens();
  state.finish.usage.completion_tokens = static_cast<int32_t>(sequence.record().ids.size());
  state.finish.timings = TimingsOf(sequence);
  ++counters_.finished_total;
  End(sequence, std::move(state));
}

void SchedulerCore::Impl::Fail(Sequence& sequence, absl::Status error) {
  ++counters_.failed_total;
  FinishedState state;
  state.finish.reason = FinishReason::kError;
  state.error = std::move(error);
  End(sequence, std::move(state));
}

void SchedulerCore::Impl::End(Sequence& sequence, FinishedState state) {
  FATHOM_CHECK(!sequence.finished(), "sequence {} ended before", sequence.number);
  if (sequence.running() != nullptr) Vacate(sequence);
  Dequeue(sequence, false);
  sequence.record().finish = state.finish.reason;
  sequence.state = std::move(state);
  Session& session = *sequence.session;
  if (session.finished()) {
    sessions_.SetDeadline(session, 0);
    sessions_.SetKeepUntil(session, now_ + options_.record_keep_us);
    memory_line_.OnFreed(now_);
  }
  MarkDirty(session);
}

bool SchedulerCore::Impl::FinishIfEnded(Sequence& sequence) {
  const std::vector<TokenId>& ids = sequence.record().ids;
  if (ids.empty()) return false;
  const StopParams& stop = sequence.session->record.request.stop;
  auto is_last = [&](const std::vector<TokenId>& ends) {
    return std::find(ends.begin(), ends.end(), ids.back()) != ends.end();
  };
  if (is_last(stop.end_token_ids)) {
    Finish(sequence, FinishReason::kEndToken);
  } else if (is_last(stop.stop_token_ids)) {
    Finish(sequence, FinishReason::kStopToken);
  } else if (ids.size() >= static_cast<size_t>(stop.max_tokens)) {
    Finish(sequence, FinishReason::kLength);
  } else {
    return false;
  }
  return true;
}

void SchedulerCore::Impl::MarkDirty(Session& session) {
  if (session.dirty) return;
  session.dirty = true;
  dirty_.push_back(session.number);
}

}  // namespace fathom::scheduler
