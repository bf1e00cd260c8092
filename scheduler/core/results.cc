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
  groups_.emplace(event.group, std::make_unique<Group>(event));
  placement_.GroupUp(event.limits);
  waiting_.GroupUp(WaitQueue::Kind::Of(event.fingerprint, event.kind), now_);
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
  while (!group.running.empty()) {
    ++counters_.failovers_total;
    Interrupt(*group.running.begin()->second, StayEnd::kGroupLost);
  }
  waiting_.GroupDown(WaitQueue::Kind::Of(group.fingerprint, group.kind), now_);
  groups_.erase(id);
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
  for (const FlightRow& row : flight.rows) {
    counters_.step_rows_total += static_cast<uint64_t>(row.tokens);
    if (!row.prefill) continue;
    counters_.prompt_tokens_total += static_cast<uint64_t>(row.tokens);
    EndChunk(row);
  }
  for (const ResultRow& row : result.rows) {
    ApplyRow(*group, flight.rows[static_cast<size_t>(row.row)], row);
  }
}

// The chunks of an earlier stay in a slot ended with that stay.
void SchedulerCore::Impl::EndChunk(const FlightRow& flight) {
  Session* session = sessions_.Find(flight.session);
  if (session == nullptr) return;
  Sequence& sequence = session->sequences[static_cast<size_t>(flight.sequence)];
  const RunningState* running = sequence.running();
  if (running != nullptr && running->seat == flight.seat) sequence.stamps.EndChunk(now_);
}

void SchedulerCore::Impl::ApplyRow(const Group& group, const FlightRow& flight,
                                   const ResultRow& row) {
  Session* session = sessions_.Find(flight.session);
  Sequence* sequence =
      session == nullptr ? nullptr : &session->sequences[static_cast<size_t>(flight.sequence)];
  if (sequence == nullptr || sequence->finished() || !Concerns(group, flight, *sequence)) {
    counters_.tokens_dropped_total += row.ids.size();
    return;
  }
  if (row.fault != RowFault::kNone) {
    const RunningState* running = sequence->running();
    // A fault of an earlier stay in a slot is ignored: the sequence is computed again.
    if (running == nullptr || running->seat != flight.seat) return;
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
  if (row.prompt_logprobs) {
    sessions_.AppendPromptLogprobs(*sequence, *row.prompt_logprobs, group.fingerprint, group.kind);
  }
  for (size_t i = 0; i < row.ids.size() && !sequence->finished(); ++i) {
    const bool next = sessions_.AppendToken(
        *sequence, row.position + static_cast<int32_t>(i), row.ids[i],
        row.logprobs.empty() ? nullptr : &row.logprobs[i], group.fingerprint, group.kind);
    ++(next ? counters_.generation_tokens_total : counters_.tokens_dropped_total);
  }
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
