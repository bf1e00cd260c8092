// Finds the requests that end the workers which compute them. A sequence is a suspect if its steps
// were in flight when two groups died, and it made no progress in between: no token, and no part of
// its prefill that was not computed before. The steps of a suspect run alone: no other row is in
// their plan, and no other plan of the group is in flight. Progress clears a suspect; a suspect
// whose group dies while its step is alone in flight fails. So after a few deaths the request that
// causes them has failed, and every other one goes on.
#include <optional>
#include <set>
#include <utility>

#include "common/check.h"
#include "common/reason.h"
#include "scheduler/core/core_impl.h"

namespace fathom::scheduler {

void SchedulerCore::Impl::NoteProgress(Sequence& sequence) { sequence.deaths = 0; }

void SchedulerCore::Impl::NoteChunk(const FlightRow& flight, Sequence& sequence) {
  if (flight.end_tokens <= sequence.furthest_tokens) return;
  sequence.furthest_tokens = flight.end_tokens;
  NoteProgress(sequence);
}

void SchedulerCore::Impl::NoteDeath(Group& group) {
  std::set<std::pair<uint64_t, int32_t>> in_flight;
  for (const FlightStep& step : group.in_flight) {
    for (const FlightRow& row : step.rows) in_flight.emplace(row.session, row.sequence);
  }
  for (const auto& [number, index] : in_flight) {
    Session* session = sessions_.Find(number);
    if (session == nullptr) continue;
    Sequence& sequence = session->sequences[static_cast<size_t>(index)];
    if (sequence.finished()) continue;
    const bool alone = sequence.suspect() && in_flight.size() == 1;
    ++sequence.deaths;
    if (alone) {
      FailPoison(sequence);
    } else if (sequence.suspect()) {
      suspects_.emplace(number, index);
    }
  }
}

void SchedulerCore::Impl::FailPoison(Sequence& sequence) {
  const Session& session = *sequence.session;
  ++counters_.poisoned_total;
  absl::Status status = Internal(
      "request {}: {} groups of workers were lost one after the other while they computed this "
      "request at prompt of {} tokens and token {} of its answer, the last one with no other "
      "request in its step, so it is not tried again. If nobody stopped the workers, the log of "
      "the "
      "lost worker says why it ended: please report that with the request. Another prompt or other "
      "parameters may work",
      session.record.key.request_id, sequence.deaths, session.prompt_tokens(),
      sequence.record().ids.size());
  sessions_.AddLog(std::string(Message(status)));
  sessions_.Fail(sequence, WithReason(std::move(status), Reason::kEndsWorkers));
}

std::optional<bool> SchedulerCore::Impl::PlanSuspect(Group& group) {
  if (suspects_.empty()) return std::nullopt;
  Sequence* seated = nullptr;
  for (auto it = suspects_.begin(); it != suspects_.end();) {
    Session* session = sessions_.Find(it->first);
    Sequence* each =
        session == nullptr ? nullptr : &session->sequences[static_cast<size_t>(it->second)];
    if (each == nullptr || each->finished() || !each->suspect()) {
      it = suspects_.erase(it);
      continue;
    }
    const RunningState* running = each->running();
    if (seated == nullptr && running != nullptr && running->group == group.id) seated = each;
    ++it;
  }
  const bool first = seated == nullptr;
  int32_t lane = first ? 0 : seated->running()->lane;
  std::vector<Sequence*> overtaken;
  for (int32_t tried = 0; seated == nullptr && tried < group.limits.lanes; ++tried) {
    lane = (group.next_lane + tried) % group.limits.lanes;
    Placement::Choice next = placement_.NextFor(
        group, {.lane = lane, .overtakes_max = options_.overtakes_max, .now = now_});
    if (next.sequence == nullptr || !next.sequence->suspect()) continue;
    seated = next.sequence;
    overtaken = std::move(next.overtaken);
  }
  if (seated == nullptr) return std::nullopt;
  if (!group.in_flight.empty()) return false;
  Draft draft;
  draft.flight.lane = lane;
  draft.rows_left = group.limits.step_tokens;
  draft.ids_left = kAdmitIdsMax;
  if (first && !Seat(group, *seated, draft)) return std::nullopt;
  NoteOvertaken(overtaken);
  // A sample of the sequence is progress, so a suspect has part of its prefill before it.
  FATHOM_CHECK(!seated->running()->decoding(), "the suspect {} decodes", seated->number);
  AddPrefill(*seated, first, draft);
  return SendPlan(group, draft);
}

absl::Status SchedulerCore::Impl::CheckSuspects(const Group& group) const {
  for (const auto& [key, sequence] : group.running) {
    if (!sequence->suspect()) continue;
    if (!suspects_.contains({sequence->session->number, sequence->index})) {
      return Internal("group {}: the suspect {} is not in the list", group.id.value,
                      sequence->number);
    }
    for (const FlightStep& step : group.in_flight) {
      for (const FlightRow& row : step.rows) {
        if (row.seat != sequence->running()->seat) continue;
        if (group.in_flight.size() == 1 && step.rows.size() == 1) continue;
        return Internal("group {}: step {} of the suspect {} is not alone", group.id.value,
                        step.step.value, sequence->number);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace fathom::scheduler
