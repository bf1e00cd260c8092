// How a sequence comes to wait, to run and to be suspended (sessions end it). A sequence leaves its
// slot only through Vacate; without it, the slot or the blocks would be lost.
#include <algorithm>

#include "common/check.h"
#include "common/reason.h"
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

absl::Status SchedulerCore::Impl::CheckNew(const Record& record) {
  FATHOM_RETURN_IF_ERROR(placement_.CheckFits(record));
  // Each sequence of a request waits and is computed by itself. A request of more sequences than
  // the queue may have is taken if no other one waits.
  const int32_t waiting = waiting_.first_time_requests();
  const int32_t n = record.request.sequences;
  if (waiting >= options_.waiting_requests_max ||
      (waiting > 0 && waiting + n > options_.waiting_requests_max)) {
    return WithReason(Exhausted("request {}: {} requests wait, the queue's limit; try again later",
                                record.key.request_id, waiting_.first_time_requests()),
                      Reason::kQueueFull, "", queue_line_.OnRefused(now_));
  }
  const int64_t tokens = n * static_cast<int64_t>(record.prompt_ids.size());
  // If no other new request waits, a prompt above the limit is taken too. Otherwise every retry of
  // it would be refused.
  if (waiting_.first_time_requests() > 0 &&
      waiting_.first_time_tokens() + tokens > options_.waiting_tokens_max) {
    return WithReason(
        Exhausted("request {}: {} prompt tokens wait and this request has {}, over the "
                  "queue's limit of {}; try again later",
                  record.key.request_id, waiting_.first_time_tokens(), tokens,
                  options_.waiting_tokens_max),
        Reason::kQueueFull, "", queue_line_.OnRefused(now_));
  }
  return absl::OkStatus();
}

void SchedulerCore::Impl::Enqueue(Sequence& sequence) {
  if (unfit_check_us_ == 0 && !placement_.CheckFits(sequence.session->record).ok()) {
    unfit_check_us_ = now_ + options_.model_wait_us;
  }
  const FingerprintSpan* span = SpanOf(sequence);
  WaitQueue::Kind kind;
  if (span != nullptr) kind = WaitQueue::Kind::Of(span->fingerprint, span->kind);
  Moves moves;
  const OrderKey order = policy_->Push(FactsOf(sequence), &moves);
  sequence.stamps.Wait(now_, !sequence.seated_before);
  waiting_.Push(sequence, order, kind, !sequence.seated_before, now_);
  Reorder(moves);
}

void SchedulerCore::Impl::Dequeue(Sequence& sequence, bool admitted) {
  waiting_.Erase(sequence, now_);
  Moves moves;
  policy_->Pop(FactsOf(sequence), admitted, &moves);
  Reorder(moves);
}

void SchedulerCore::Impl::Reorder(const Moves& moves) {
  for (const Move& move : moves) waiting_.Reorder(move.from, move.to);
}

std::vector<BlockCopy> SchedulerCore::Impl::Seat(Group& group, int32_t lane, Sequence& sequence) {
  const Session& session = *sequence.session;
  Dequeue(sequence, true);
  RunningState running;
  running.group = group.id;
  running.slot = group.free_slots.back();
  group.free_slots.pop_back();
  running.seat = next_seat_++;
  running.lane = lane;
  ++group.lane_sizes[static_cast<size_t>(lane)];
  running.run_ahead = std::min(options_.run_ahead_max, group.lane_plans_max() - 1);
  running.keep = policy_->EvictionOrder(FactsOf(sequence));
  running.next_position = static_cast<int32_t>(sequence.record().ids.size());
  running.known_tokens = session.prompt_tokens() + running.next_position;
  auto reservation = group.kv.Reserve(running.known_tokens);
  FATHOM_CHECK(reservation.has_value(), "sequence {} was seated without room", sequence.number);
  running.blocks = std::move(reservation->blocks);
  running.planned_tokens = running.reused_tokens = reservation->computed_tokens;
  if (sequence.seated_before || running.next_position > 0) {
    counters_.replayed_tokens_total +=
        static_cast<uint64_t>(running.known_tokens - running.reused_tokens);
  }
  group.running.emplace(running.keep, &sequence);
  sequence.state = std::move(running);
  if (!sequence.seated_before) queue_line_.OnFreed(now_);
  sequence.stamps.Seat(now_, group.id, group.epoch, !sequence.seated_before);
  sequence.seated_before = true;
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
  --group->lane_sizes[static_cast<size_t>(running->lane)];
  Moves moves;
  policy_->Charge(FactsOf(sequence), running->planned_tokens - running->reused_tokens, &moves);
  sequence.state = SuspendedState{};
  Reorder(moves);
}

void SchedulerCore::Impl::Withdraw(Sequence& sequence, StayEnd why) {
  if (sequence.running() != nullptr) Vacate(sequence);
  if (std::holds_alternative<WaitingState>(sequence.state)) Dequeue(sequence, false);
  sequence.stamps.Leave(now_, why);
}

void SchedulerCore::Impl::Interrupt(Sequence& sequence, StayEnd why) {
  Vacate(sequence);
  sequence.stamps.Leave(now_, why);
  sessions_.CountSuspension(sequence);
  Enqueue(sequence);
}

}  // namespace fathom::scheduler
