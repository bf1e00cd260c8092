// Applies the results of steps, and adds and removes groups.
#include <algorithm>
#include <utility>

#include "common/reason.h"
#include "scheduler/core/core_impl.h"

namespace fathom::scheduler {
namespace {

Reason ReasonOf(RowFault fault) {
  switch (fault) {
    case RowFault::kNone:
      break;
    case RowFault::kNonFiniteLogits:
      return Reason::kNonFiniteLogits;
    case RowFault::kTokenOutOfRange:
      return Reason::kTokenOutOfRange;
    case RowFault::kBlockOutOfRange:
      return Reason::kBlockOutOfRange;
  }
  return Reason::kInternal;
}

}  // namespace

void SchedulerCore::Impl::On(const GroupUp& event) {
  if (FindGroup(event.group) != nullptr) LoseGroup(event.group);
  if (const absl::Status status = CheckLimits(event.limits); !status.ok()) {
    actions_.aborts.push_back({event.group, event.epoch, std::string(Message(status))});
    return;
  }
  groups_.emplace(event.group, std::make_unique<Group>(event)).first->second->result_us = now_;
  placement_.GroupUp(event.limits);
  CountSlots();
  forecast_.Reset(now_);
  waiting_.GroupUp(FindGroup(event.group)->lines, now_);
  if (waiting_.size() > 0) unfit_check_us_ = now_ + options_.model_wait_us;
  for (const auto& [id, group] : groups_) {
    if (group->draining) MoveAway(*group);
  }
}

void SchedulerCore::Impl::On(const GroupDrain& event) {
  Group* group = FindGroup(event.group);
  if (group == nullptr || group->epoch != event.epoch || group->draining) return;
  group->draining = true;
  MoveAway(*group);
}

// The record keeps what the steps in flight still give, because both groups are of one kind.
void SchedulerCore::Impl::MoveAway(Group& group) {
  std::vector<Sequence*> moving;
  for (const auto& [key, sequence] : group.running) {
    if (placement_.CanMove(*sequence, group)) moving.push_back(sequence);
  }
  for (Sequence* sequence : moving) Interrupt(*sequence, StayEnd::kGroupLost);
}

void SchedulerCore::Impl::TellDrained() {
  for (const auto& [id, group] : groups_) {
    if (!group->draining || group->drained) continue;
    if (!group->running.empty() || !group->in_flight.empty()) continue;
    group->drained = true;
    actions_.drained.push_back({id, group->epoch});
  }
}

void SchedulerCore::Impl::On(const GroupLost& event) {
  const Group* group = FindGroup(event.group);
  if (group != nullptr && group->epoch == event.epoch) LoseGroup(event.group);
}

void SchedulerCore::Impl::LoseGroup(GroupId id) {
  Group& group = *FindGroup(id);
  NoteDeath(group);
  while (!group.running.empty()) {
    ++counters_.failovers_total;
    Interrupt(*group.running.begin()->second, StayEnd::kGroupLost);
  }
  while (!group.swapped.empty()) DropSwapped(*group.swapped.begin()->second);
  waiting_.GroupDown(group.lines, now_);
  counters_.prefix_evicted_blocks_total += group.kv.evictions_total();
  groups_.erase(id);
  CountSlots();
  forecast_.Reset(now_);
}

void SchedulerCore::Impl::CountSlots() {
  int32_t slots = 0;
  for (const auto& [id, group] : groups_) slots += group->slots();
  shares_.SetSlots(slots);
}

void SchedulerCore::Impl::On(const StepDone& event) {
  const StepResult& result = event.result;
  Group* group = FindGroup(event.group);
  if (group == nullptr || group->term != result.term || group->epoch != result.epoch) return;
  const absl::Status status =
      group->in_flight.empty() ? Invalid("result of step {}, none is expected", result.step.value)
                               : CheckResult(group->in_flight.front(), result);
  if (!status.ok()) {
    actions_.aborts.push_back({group->id, group->epoch, std::string(Message(status))});
    return LoseGroup(event.group);
  }
  const FlightStep flight = std::move(group->in_flight.front());
  group->in_flight.pop_front();
  ++counters_.steps_total;
  group->swap_cost.Note(flight, result.timings);
  const int64_t step_us = now_ - std::max(flight.planned_us, std::exchange(group->result_us, now_));
  LearnSpeed(*group, flight, result, step_us);
  int64_t rows = 0;
  for (const FlightRow& row : flight.rows) {
    rows += row.tokens;
    counters_.step_rows_total += static_cast<uint64_t>(row.tokens);
    if (!row.prefill) continue;
    counters_.prompt_tokens_total += static_cast<uint64_t>(row.tokens);
    EndChunk(row);
  }
  forecast_.NoteStep(2 * rows >= group->limits.step_tokens, step_us, now_);
  for (const ResultRow& row : result.rows) {
    ApplyRow(*group, flight.rows[static_cast<size_t>(row.row)], row);
  }
}

// Only steps of decode rows tell what drafts gain; prompts make a step long in any case.
void SchedulerCore::Impl::LearnSpeed(Group& group, const FlightStep& flight,
                                     const StepResult& result, int64_t step_us) {
  if (group.limits.draft_max == 0) return;
  for (const FlightRow& row : flight.rows) {
    if (row.prefill) return;
  }
  int32_t tokens = 0;
  for (const ResultRow& row : result.rows) tokens += static_cast<int32_t>(row.ids.size());
  group.speculation.Learn({.rows = static_cast<int32_t>(flight.rows.size()),
                           .drafts = flight.drafts,
                           .us = step_us,
                           .tokens = tokens});
}

// The chunks of an earlier stay in a slot ended with that stay.
void SchedulerCore::Impl::EndChunk(const FlightRow& flight) {
  Session* session = sessions_.Find(flight.session);
  if (session == nullptr) return;
  Sequence& sequence = session->sequences[static_cast<size_t>(flight.sequence)];
  const RunningState* running = sequence.running();
  if (running == nullptr || running->seat != flight.seat) return;
  sequence.stamps.EndChunk(now_);
  NoteChunk(flight, sequence);
}

void SchedulerCore::Impl::ApplyRow(Group& group, const FlightRow& flight, const ResultRow& row) {
  Session* session = sessions_.Find(flight.session);
  Sequence* sequence =
      session == nullptr ? nullptr : &session->sequences[static_cast<size_t>(flight.sequence)];
  if (sequence == nullptr || sequence->finished() || !Concerns(group, flight, *sequence)) {
    counters_.tokens_dropped_total += row.ids.size();
    return;
  }
  RunningState* running = sequence->running();
  const bool in_seat = running != nullptr && running->seat == flight.seat;
  if (row.fault != RowFault::kNone) {
    // A fault of an earlier stay in a slot is ignored: the sequence is computed again.
    if (!in_seat) return DropSwapped(*sequence);
    group.kv.Drop(running->blocks);
    running->clean_tokens = 0;
    return sessions_.Fail(
        *sequence,
        WithReason(Internal("request {}: the worker reports {} at token {}; no token is sent for "
                            "such a row. {}",
                            session->record.key.request_id, RowFaultName(row.fault),
                            sequence->record().ids.size(),
                            row.fault_detail.empty() ? "Check the model's weights and the device"
                                                     : row.fault_detail),
                   ReasonOf(row.fault)));
  }
  if (!row.ids.empty()) NoteProgress(*sequence);
  if (row.prompt_logprobs) {
    sessions_.AppendPromptLogprobs(*sequence, *row.prompt_logprobs, group.fingerprint, group.kind);
  }
  CountDrafts(flight, row, *sequence);
  // The sampled row attends to the keys and values of all tokens before its last id. Accepted
  // drafts are among the ids.
  if (in_seat && !row.ids.empty()) {
    running->clean_tokens =
        session->prompt_tokens() + row.position + static_cast<int32_t>(row.ids.size()) - 1;
  }
  for (size_t i = 0; i < row.ids.size() && !sequence->finished(); ++i) {
    const bool next = sessions_.AppendToken(
        *sequence, row.position + static_cast<int32_t>(i), row.ids[i],
        row.logprobs.empty() ? nullptr : &row.logprobs[i], group.fingerprint, group.kind);
    ++(next ? counters_.generation_tokens_total : counters_.tokens_dropped_total);
  }
  if (in_seat && sequence->running() != nullptr) IndexBlocks(group, *sequence);
}

// The plan counted one token of the row; the kept drafts come to it.
void SchedulerCore::Impl::CountDrafts(const FlightRow& flight, const ResultRow& row,
                                      Sequence& sequence) {
  if (row.drafted == 0) return;
  const StopParams& stop = sequence.session->record.request.stop;
  const auto ends = [](const std::vector<TokenId>& ids, TokenId id) {
    return std::ranges::find(ids, id) != ids.end();
  };
  int32_t kept = 0;  // Drafts after the token that ends the sequence are no tokens of the record.
  for (size_t i = 0; i + 1 < row.ids.size(); ++i, ++kept) {
    if (ends(stop.end_token_ids, row.ids[i]) || ends(stop.stop_token_ids, row.ids[i])) break;
  }
  sequence.drafted_tokens += row.drafted;
  sequence.accepted_draft_tokens += kept;
  ++counters_.draft_rows_total;
  counters_.drafted_tokens_total += static_cast<uint64_t>(row.drafted);
  counters_.accepted_draft_tokens_total += static_cast<uint64_t>(kept);
  RunningState* running = sequence.running();
  if (running == nullptr || running->seat != flight.seat) return;
  running->planned_tokens += kept;
  running->next_position += kept;
}

// Whether the tokens of a row may belong to the record. Those of the sequence's present stay in a
// slot do. Those of an earlier stay do if the group that computed the row has the fingerprint of
// the record's last tokens and of the group that computes the sequence now. Otherwise one answer
// could get tokens of two kinds of groups in turn.
bool SchedulerCore::Impl::Concerns(const Group& group, const FlightRow& flight,
                                   const Sequence& sequence) const {
  const RunningState* running = sequence.running();
  if (running != nullptr && running->seat == flight.seat) return true;
  const auto& spans = sequence.record().fingerprints;
  if (!spans.empty() && spans.back().fingerprint != group.fingerprint) return false;
  return running == nullptr || groups_.at(running->group)->fingerprint == group.fingerprint;
}

}  // namespace fathom::scheduler
