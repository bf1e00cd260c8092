// How a sequence comes to wait, to run and to be suspended (sessions end it). A sequence leaves its
// slot only through Vacate; without it, the slot or the blocks would be lost.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/reason.h"
#include "common/retry_delay.h"
#include "scheduler/core/core_impl.h"

namespace fathom::scheduler {

SequenceFacts SchedulerCore::Impl::FactsOf(const Sequence& sequence) const {
  return {.number = sequence.number,
          .tenant = sequence.session->record.key.tenant,
          .priority = sequence.session->record.priority,
          .arrival_us = sequence.session->arrival_us,
          .resumed = sequence.seated_before,
          .prompt_tokens = sequence.session->prompt_tokens(),
          .max_tokens = sequence.session->record.request.stop.max_tokens,
          .generated_tokens = static_cast<int32_t>(sequence.record().ids.size()),
          .preemptions = sequence.preemptions};
}

Group* SchedulerCore::Impl::FindGroup(GroupId id) {
  auto it = groups_.find(id);
  return it == groups_.end() ? nullptr : it->second.get();
}

absl::Status SchedulerCore::Impl::CheckNew(const Record& record, int64_t deadline_us) {
  FATHOM_RETURN_IF_ERROR(placement_.CheckFits(record));
  FATHOM_RETURN_IF_ERROR(CheckDeadline(record, deadline_us));
  return admission_.Check(record, shares_.OthersArePresent(record.key.tenant), now_);
}

absl::Status SchedulerCore::Impl::CheckDeadline(const Record& record, int64_t deadline_us) {
  if (deadline_us <= 0 || groups_.empty()) return absl::OkStatus();
  int32_t step_tokens = 1;
  for (const auto& [id, group] : groups_) {
    step_tokens = std::max(step_tokens, group->limits.step_tokens);
  }
  auto prompt = static_cast<int32_t>(record.prompt_ids.size());
  // Those of tenants that are held are passed, and so may be some that wait for blocks.
  const int32_t ahead = policy_->Ahead({.tenant = record.key.tenant, .priority = record.priority}) -
                        waiting_.held_size() - options_.overtakes_max;
  const int64_t wait_us = forecast_.LeastWaitUs(std::max(ahead, 0), now_);
  int64_t least_us = forecast_.LeastFirstTokenUs(std::max(ahead, 0), prompt / step_tokens, now_);
  if (least_us / 2 > deadline_us) {  // What is in the prefix index is not computed.
    prompt -= CachedTokens(record);
    least_us = forecast_.LeastFirstTokenUs(std::max(ahead, 0), prompt / step_tokens, now_);
  }
  // Half of the least time: only what is sure is refused.
  if (least_us / 2 <= deadline_us) return absl::OkStatus();
  admission_.CountRefused(RefusedBy::kDeadline);
  const int64_t late_ms = (least_us - deadline_us) / 1000;
  const bool queue = wait_us / 2 > deadline_us;
  return WithReason(
      DeadlineExceeded("request {}: no token can come within its deadline of {} ms: {} requests "
                       "wait before it, and the first token is not to be expected before {} ms "
                       "({} ms of it in the queue). {}",
                       record.key.request_id, deadline_us / 1000, std::max(ahead, 0),
                       least_us / 1000, wait_us / 1000,
                       queue
                           ? "Send it later, with a longer deadline or with a more urgent priority"
                           : "Send it with a longer deadline or with a shorter prompt"),
      Reason::kDeadlineUnreachable, "deadline_ms",
      queue ? JitteredRetryMs(late_ms,
                              admission_.refused()[static_cast<size_t>(RefusedBy::kDeadline)])
            : 0);
}

void SchedulerCore::Impl::CountRefused(const absl::Status& status) {
  const std::string reason = DetailOf(status).value_or(ErrorDetail{}).reason;
  for (const Reason counted : {Reason::kQueueFull, Reason::kTenantQueueFull,
                               Reason::kTenantRateLimit, Reason::kDeadlineUnreachable}) {
    if (reason == ReasonText(counted)) return;
  }
  admission_.CountRefused(RefusedBy::kOther);
}

int64_t SchedulerCore::Impl::TokensLeft(const Sequence& sequence) const {
  const Session& session = *sequence.session;
  const auto generated = std::ssize(sequence.record().ids);
  const int64_t prompt = sequence.seated_before ? 0 : session.prompt_tokens();
  return prompt + std::max<int64_t>(session.record.request.stop.max_tokens - generated, 0);
}

void SchedulerCore::Impl::Enqueue(Sequence& sequence) {
  admission_.TakeTokens(sequence.session->record.key.tenant, TokensLeft(sequence), now_);
  Wait(sequence);
}

void SchedulerCore::Impl::Wait(Sequence& sequence) {
  if (unfit_check_us_ == 0 && !placement_.CheckFits(sequence.session->record).ok()) {
    unfit_check_us_ = now_ + options_.model_wait_us;
  }
  const FingerprintSpan* span = SpanOf(sequence);
  WaitQueue::Kind kind;
  if (span != nullptr) kind = WaitQueue::Kind::Of(span->fingerprint, span->kind);
  Moves moves;
  const OrderKey order = policy_->Push(FactsOf(sequence), &moves);
  sequence.stamps.Wait(now_, !sequence.seated_before);
  if (!sequence.seated_before) {
    const Session& session = *sequence.session;
    admission_.Queued(session.record.key.tenant, session.prompt_tokens(), now_);
  }
  waiting_.Push(sequence, order, kind, !sequence.seated_before, now_);
  shares_.Waits(sequence.session->record.key.tenant);
  Reorder(moves);
}

void SchedulerCore::Impl::Dequeue(Sequence& sequence, bool admitted) {
  if (std::get<WaitingState>(sequence.state).first_time) {
    const Session& session = *sequence.session;
    admission_.Unqueued(session.record.key.tenant, session.prompt_tokens(), now_);
  }
  waiting_.Erase(sequence, now_);
  shares_.WaitsNoMore(sequence.session->record.key.tenant);
  forecast_.Left();
  Moves moves;
  policy_->Pop(FactsOf(sequence), admitted, &moves);
  Reorder(moves);
}

void SchedulerCore::Impl::Reorder(const Moves& moves) {
  for (const Move& move : moves) waiting_.Reorder(move.from, move.to);
}

void SchedulerCore::Impl::HoldOrNot(const std::string& tenant) {
  waiting_.Hold(tenant, admission_.AtRunningMax(tenant), now_);
}

int32_t SchedulerCore::Impl::CachedTokens(const Sequence& sequence) const {
  int32_t most = 0;
  for (const auto& [id, group] : groups_) {
    const auto query = prefixes_.QueryOf(sequence, *group);
    if (query) most = std::max(most, group->kv.CachedTokens(*query));
  }
  return most;
}

int32_t SchedulerCore::Impl::CachedTokens(const Record& record) const {
  int32_t most = 0;
  BlockHashes hashes;
  for (const auto& [id, group] : groups_) {
    const auto query = prefixes_.QueryOf(record, *group, &hashes);
    if (query) most = std::max(most, group->kv.CachedTokens(*query));
  }
  return most;
}

std::optional<KvReservation> SchedulerCore::Impl::ReserveFor(Group& group, const Sequence& sequence,
                                                             int32_t known,
                                                             const Draft& draft) const {
  // The first row computes a token whose id this plan carries.
  const int32_t reuse_max =
      known <= draft.ids_left ? known - 1 : std::min(known - 1, draft.ids_left - kAdmitIdsMin);
  auto query = prefixes_.QueryOf(sequence, group);
  if (query) query->tokens_max = std::min(query->tokens_max, reuse_max);
  const int32_t prompt = sequence.session->prompt_tokens();
  const RunningState* source = SequencePrefixes::ForkSource(sequence, group);
  const int32_t shared = std::min(prompt, reuse_max);
  if (source != nullptr && (!query || group.kv.CachedTokens(*query) < shared)) {
    return group.kv.Fork(known, source->blocks, shared);
  }
  return group.kv.Reserve(known, query ? &*query : nullptr);
}

bool SchedulerCore::Impl::Seat(Group& group, Sequence& sequence, Draft& draft) {
  const Session& session = *sequence.session;
  RunningState running;
  running.next_position = static_cast<int32_t>(sequence.record().ids.size());
  running.known_tokens = session.prompt_tokens() + running.next_position;
  auto reservation = ReserveFor(group, sequence, running.known_tokens, draft);
  if (!reservation) return false;
  Dequeue(sequence, true);
  running.group = group.id;
  running.slot = group.free_slots.back();
  group.free_slots.pop_back();
  running.seat = next_seat_++;
  running.lane = draft.flight.lane;
  ++group.lane_sizes[static_cast<size_t>(running.lane)];
  running.run_ahead = std::min(options_.run_ahead_max, group.lane_plans_max() - 1);
  running.keep = policy_->EvictionOrder(FactsOf(sequence));
  running.blocks = std::move(reservation->blocks);
  running.planned_tokens = running.reused_tokens = reservation->computed_tokens;
  SwapIn(group, sequence, running, &reservation->copies);
  running.clean_tokens = running.reused_tokens;
  running.indexed_blocks = reservation->indexed_blocks;
  running.indexed_at = reservation->indexed_at.block;
  running.indexed_serial = reservation->indexed_at.serial;
  for (const BlockCopy& copy : reservation->copies) draft.plan.copies.push_back(copy);
  CountReuse(sequence, running);
  group.running.Insert(running.keep, &sequence);
  sequence.state = std::move(running);
  admission_.Seated(session.record.key.tenant);
  shares_.Runs(session.record.key.tenant);
  HoldOrNot(session.record.key.tenant);
  sequence.stamps.Seat(now_, group.id, group.epoch, !sequence.seated_before);
  sequence.seated_before = true;
  return true;
}

void SchedulerCore::Impl::CountReuse(Sequence& sequence, const RunningState& running) {
  if (sequence.seated_before || running.next_position > 0) {
    counters_.replayed_tokens_total +=
        static_cast<uint64_t>(running.known_tokens - running.reused_tokens);
  }
  if (sequence.seated_before) return;
  const int32_t prompt = sequence.session->prompt_tokens();
  sequence.cached_tokens = std::min(running.reused_tokens, prompt);
  counters_.prefix_hit_tokens_total += static_cast<uint64_t>(sequence.cached_tokens);
  if (prefixes_.MayShare(sequence.session->record)) {
    counters_.prefix_queries_tokens_total += static_cast<uint64_t>(prompt);
  }
}

void SchedulerCore::Impl::IndexBlocks(Group& group, Sequence& sequence) {
  RunningState& running = *sequence.running();
  const auto length =
      sequence.session->prompt_tokens() + static_cast<int32_t>(sequence.record().ids.size());
  const int32_t tokens = std::min(running.clean_tokens, length);
  if ((running.indexed_blocks + 1) * group.kv.block_tokens() > tokens) return;
  const auto query = prefixes_.QueryOf(sequence, group);
  if (!query) return;
  PrefixIndex::Place at{running.indexed_at, running.indexed_serial};
  group.kv.Index(*query, running.blocks, tokens, &running.indexed_blocks, &at);
  running.indexed_at = at.block;
  running.indexed_serial = at.serial;
}

void SchedulerCore::Impl::Vacate(Sequence& sequence) {
  RunningState* running = sequence.running();
  FATHOM_CHECK(running != nullptr, "sequence {} has no slot", sequence.number);
  Group* group = FindGroup(running->group);
  FATHOM_CHECK(group != nullptr, "sequence {} sits in no group", sequence.number);
  IndexBlocks(*group, sequence);
  group->kv.Release(running->blocks);
  if (sequence.session->record.grammar) group->grammars.Leave(sequence.session->record.grammar);
  group->free_slots.push_back(running->slot);
  group->released.push_back(running->slot);
  FATHOM_CHECK(group->running.Erase(running->keep), "sequence {} sits in no place of its group",
               sequence.number);
  --group->lane_sizes[static_cast<size_t>(running->lane)];
  const std::string& tenant = sequence.session->record.key.tenant;
  admission_.Vacated(tenant);
  shares_.RunsNoMore(tenant);
  HoldOrNot(tenant);
  Moves moves;
  const int32_t prefill = std::min(running->planned_tokens, running->known_tokens);
  policy_->Charge(
      FactsOf(sequence),
      {.prefill = prefill - running->reused_tokens, .decode = running->planned_tokens - prefill},
      &moves);
  sequence.state = SuspendedState{};
  Reorder(moves);
}

void SchedulerCore::Impl::Withdraw(Sequence& sequence, StayEnd why) {
  if (!sequence.suspended()) {
    const std::string& tenant = sequence.session->record.key.tenant;
    admission_.TakeTokens(tenant, -TokensLeft(sequence), now_);
  }
  if (sequence.running() != nullptr) Vacate(sequence);
  if (std::holds_alternative<WaitingState>(sequence.state)) Dequeue(sequence, false);
  DropSwapped(sequence);
  sequence.stamps.Leave(now_, why);
}

void SchedulerCore::Impl::Interrupt(Sequence& sequence, StayEnd why) {
  Vacate(sequence);
  sequence.stamps.Leave(now_, why);
  sessions_.CountSuspension(sequence);
  Wait(sequence);
}

}  // namespace fathom::scheduler
