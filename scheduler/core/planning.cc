// Which rows the next step of a group has, for the sequences of one lane: first the decodes, then
// the prompts that run, then new prompts. A step has at most step_tokens rows, and with decodes at
// most mixed_step_tokens. A decode row is planned before the sample that is its input is known, but
// never beyond max_tokens. A sequence gets the blocks of its known tokens at admission, and the
// blocks of its output one at a time.
// While a group speculates (scheduler/core/speculation.h), a lane has one plan in flight, and its
// decode rows are granted drafts out of what the step, the free blocks and max_tokens leave. Drafts
// preempt no sequence and take no row that a decode row or a prompt needs.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "common/check.h"
#include "scheduler/core/core_impl.h"

namespace fathom::scheduler {
namespace {

// The most rows of a step that has decode rows. There is a row for each slot, so all decode rows
// fit, and while a slot has a prompt, that prompt gets at least one row.
int32_t MixedStepTokens(const GroupLimits& limits) {
  if (limits.mixed_step_tokens == 0) return limits.step_tokens;
  const int32_t seats = std::min(limits.slots, limits.step_tokens);
  return std::clamp(limits.mixed_step_tokens, seats, limits.step_tokens);
}

}  // namespace

void SchedulerCore::Impl::PlanAll() {
  for (Group* group : placement_.GroupsInTurn()) {
    while (!group->full() && PlanStep(*group)) {
    }
  }
}

void SchedulerCore::Impl::NoteLimits() {
  if (waiting_.size() == 0) return;
  std::vector<WaitQueue::GroupLimit> limits;
  limits.reserve(groups_.size());
  for (const auto& [id, group] : groups_) {
    limits.push_back({&group->lines, placement_.LimitOf(*group)});
  }
  waiting_.NoteLimits(limits, now_);
}

bool SchedulerCore::Impl::PlanStep(Group& group) {
  if (group.running.empty() && waiting_.size() == 0) return false;
  if (const std::optional<bool> planned = PlanSuspect(group)) return *planned;
  const int32_t lanes = group.limits.lanes;
  for (int32_t tried = 0; tried < lanes; ++tried) {
    const int32_t lane = (group.next_lane + tried) % lanes;
    if (group.lane_full(lane) || group.AwaitsResults(lane) || !PlanLane(group, lane)) continue;
    group.next_lane = (lane + 1) % lanes;
    return true;
  }
  return false;
}

bool SchedulerCore::Impl::PlanLane(Group& group, int32_t lane) {
  Draft draft;
  draft.flight.lane = lane;
  draft.rows_left = group.limits.step_tokens;
  draft.ids_left = kAdmitIdsMax;
  GrantDrafts(group, draft);
  draft.plan.chunks.reserve(group.running.size());
  draft.flight.rows.reserve(group.running.size());
  const bool had_room = AddDecodes(group, draft);
  if (!draft.plan.chunks.empty()) {
    const int32_t taken = group.limits.step_tokens - draft.rows_left;
    draft.rows_left = std::min(draft.rows_left, MixedStepTokens(group.limits) - taken);
  }
  draft.over_rows_left = std::max(1, MixedStepTokens(group.limits) / kOverRowsPart);
  AddPrefills(group, draft);
  if (had_room) AddAdmissions(group, draft);
  return SendPlan(group, draft);
}

bool SchedulerCore::Impl::SendPlan(Group& group, Draft& draft) {
  // An admit has no row yet if the ids of the tokens that its blocks hold fill the plan.
  if (draft.plan.chunks.empty() && draft.plan.admits.empty()) return false;
  draft.plan.term = group.term;
  draft.plan.epoch = group.epoch;
  draft.plan.step = draft.flight.step = group.next_step;
  draft.flight.planned_us = now_;
  draft.plan.releases = std::exchange(group.released, {});
  draft.plan.copies.insert(draft.plan.copies.begin(), group.copies.begin(), group.copies.end());
  group.copies.clear();
  draft.flight.swapped_blocks =
      static_cast<int32_t>(std::ranges::count_if(draft.plan.copies, [](const BlockCopy& copy) {
        return copy.operation != CopyOperation::kInPool;
      }));
  ++group.next_step.value;
  group.in_flight.push_back(std::move(draft.flight));
  actions_.plans.push_back({group.id, std::move(draft.plan)});
  return true;
}

void SchedulerCore::Impl::GrantDrafts(const Group& group, Draft& draft) {
  if (group.limits.draft_max == 0) return;
  draft.decoders = group.Decoders(draft.flight.lane);
  draft.row_drafts = group.speculation.Grant(draft.decoders);
  draft.drafts_left = std::max(0, MixedStepTokens(group.limits) - draft.decoders - 1);
}

// The drafts of the sequence's next row. Takes free blocks for them.
int32_t SchedulerCore::Impl::DraftsFor(Group& group, Sequence& sequence, const Draft& draft) {
  RunningState& running = *sequence.running();
  const int32_t max_tokens = sequence.session->record.request.stop.max_tokens;
  // Each draft would need a mask of its own.
  if (sequence.session->record.grammar) return 0;
  int32_t drafts =
      std::min({draft.row_drafts, draft.drafts_left, max_tokens - running.next_position - 1});
  while (drafts > 0 && !group.kv.Holds(running.blocks, running.planned_tokens + 1 + drafts)) {
    // Each decode row may need a block in this plan.
    const bool spare = group.kv.HasRoomFor((draft.decoders + 1) * group.kv.block_tokens());
    if (!spare || !group.kv.Grow(&running.blocks)) --drafts;
  }
  return std::max(drafts, 0);
}

bool SchedulerCore::Impl::AddDecodes(Group& group, Draft& draft) {
  const size_t seated = group.running.size();
  for (auto it = group.running.begin(); it != group.running.end(); ++it) {
    Sequence& sequence = *it->second;
    RunningState& running = *sequence.running();
    const int32_t max_tokens = sequence.session->record.request.stop.max_tokens;
    const auto known = static_cast<int32_t>(sequence.record().ids.size());
    if (running.lane != draft.flight.lane || !running.decoding() ||
        running.next_position >= max_tokens || running.next_position - known > running.run_ahead) {
      continue;
    }
    const size_t blocks = running.blocks.size();
    // MakeRoom preempts the last entry of `running` first, so `it` stays valid. It preempts this
    // entry only when this is the last one, and then the loop ends.
    if (!MakeRoom(group, sequence)) break;
    const int32_t drafts = DraftsFor(group, sequence, draft);
    if (running.blocks.size() > blocks) {
      draft.plan.extends.push_back(
          {running.slot,
           {running.blocks.begin() + static_cast<ptrdiff_t>(blocks), running.blocks.end()}});
    }
    AddRow(sequence, draft, 1 + drafts, true).ids_max = 1 + drafts;
    draft.drafts_left -= drafts;
    draft.flight.drafts |= drafts > 0;
    draft.plan.chunks.push_back({running.slot, DecodeRow{running.sampled_in, drafts}, true});
    running.sampled_in = group.next_step;
    ++running.planned_tokens;
    ++running.next_position;
  }
  return group.running.size() == seated;
}

bool SchedulerCore::Impl::MakeRoom(Group& group, Sequence& sequence) {
  RunningState& running = *sequence.running();
  if (group.kv.Holds(running.blocks, running.planned_tokens + 1)) return true;
  for (;;) {
    if (group.kv.Grow(&running.blocks)) return true;
    Sequence& victim = *group.running.back().second;
    ++counters_.preemptions_total;
    ++victim.preemptions;
    SwapOut(group, victim);
    Interrupt(victim, StayEnd::kPreempted);
    if (&victim == &sequence) return false;
  }
}

void SchedulerCore::Impl::AddPrefills(Group& group, Draft& draft) {
  std::vector<Sequence*> prompts;
  for (const auto& [key, sequence] : group.running) {
    const RunningState& running = *sequence->running();
    if (running.lane == draft.flight.lane && !running.decoding()) prompts.push_back(sequence);
  }
  for (Sequence* sequence : prompts) {
    if (draft.rows_left == 0) return;
    if (HasFewRows(*sequence) && draft.over_rows_left == 0) continue;
    AddPrefill(*sequence, false, draft);
  }
}

bool SchedulerCore::Impl::HasFewRows(const Sequence& sequence) const {
  const std::string& tenant = sequence.session->record.key.tenant;
  return shares_.IsOver(tenant) && shares_.OthersAreThere(tenant);
}

void SchedulerCore::Impl::AddAdmissions(Group& group, Draft& draft) {
  while (draft.rows_left > 0 && draft.ids_left >= kAdmitIdsMin) {
    const auto [sequence, overtaken] =
        placement_.NextFor(group, {.lane = draft.flight.lane,
                                   .overtakes_max = options_.overtakes_max,
                                   .rows_for_over = draft.over_rows_left > 0,
                                   .now = now_});
    if (sequence == nullptr || sequence->suspect() ||
        !group.grammars.HasRoom(sequence->session->record.grammar, draft.plan) ||
        !Seat(group, *sequence, draft)) {
      return;
    }
    NoteOvertaken(overtaken);
    AddPrefill(*sequence, true, draft);
  }
}

void SchedulerCore::Impl::NoteOvertaken(const std::vector<Sequence*>& overtaken) {
  for (Sequence* each : overtaken) ++std::get<WaitingState>(each->state).overtakes;
  counters_.overtakes_total += overtaken.size();
}

void SchedulerCore::Impl::AddPrefill(Sequence& sequence, bool first, Draft& draft) {
  RunningState& running = *sequence.running();
  const Record& record = sequence.session->record;
  const bool few = HasFewRows(sequence);
  const int32_t rows_left = few ? std::min(draft.rows_left, draft.over_rows_left) : draft.rows_left;
  const int32_t wanted = std::min(rows_left, running.known_tokens - running.planned_tokens);
  // While more ids are to come, the last one that was sent is not computed yet: the worker may be
  // asked for the log-probability of the id after it.
  const bool short_of_ids = running.sent_tokens < running.known_tokens &&
                            running.sent_tokens - running.planned_tokens - 1 < wanted;
  if (short_of_ids && draft.ids_left >= kAdmitIdsMin) {
    Admit admit{.slot = running.slot, .sequence = sequence.index};
    if (first) {
      admit.request = record.request;
      admit.seed = record.seed;
      admit.prompt_tokens = sequence.session->prompt_tokens();
      admit.computed_tokens = running.planned_tokens;
      if (FindGroup(running.group)->limits.protocol >= kProtocol2) {
        admit.traceparent = sequence.session->traceparent;
      }
      if (record.grammar) {
        admit.grammar_digest = record.grammar.digest();
        FindGroup(running.group)->grammars.Use(record.grammar, &draft.plan);
      }
      draft.plan.extends.push_back({running.slot, running.blocks});
    }
    const int32_t end =
        running.sent_tokens + std::min(draft.ids_left, running.known_tokens - running.sent_tokens);
    const std::vector<TokenId>& generated = sequence.record().ids;
    const int32_t prompt = sequence.session->prompt_tokens();
    admit.ids.reserve(static_cast<size_t>(end - running.sent_tokens));
    for (int32_t i = running.sent_tokens; i < end; ++i) {
      admit.ids.push_back(i < prompt ? record.prompt_ids[static_cast<size_t>(i)]
                                     : generated[static_cast<size_t>(i - prompt)]);
    }
    draft.ids_left -= end - running.sent_tokens;
    running.sent_tokens = end;
    admit.more = end < running.known_tokens;
    draft.plan.admits.push_back(std::move(admit));
  }
  const int32_t held_back = running.sent_tokens < running.known_tokens ? 1 : 0;
  const int32_t count = std::min(wanted, running.sent_tokens - running.planned_tokens - held_back);
  // Other prompts took all the ids of this plan, or not even the ids of the tokens in the blocks
  // are sent.
  if (count <= 0) return;
  const bool sample = running.planned_tokens + count == running.known_tokens;
  AddRow(sequence, draft, count, sample).prefill = true;
  if (few) draft.over_rows_left -= count;
  sequence.stamps.PlanChunk(now_, count);
  draft.plan.chunks.push_back({running.slot, count, sample});
  running.planned_tokens += count;
  if (!sample) return;
  running.sampled_in = FindGroup(running.group)->next_step;
  ++running.next_position;
}

FlightRow& SchedulerCore::Impl::AddRow(const Sequence& sequence, Draft& draft, int32_t tokens,
                                       bool sample) {
  FATHOM_CHECK(tokens >= 1 && tokens <= draft.rows_left, "{} rows, {} left", tokens,
               draft.rows_left);
  draft.rows_left -= tokens;
  const Session& session = *sequence.session;
  const OutputParams& output = session.record.request.output;
  const RunningState& running = *sequence.running();
  return draft.flight.rows.emplace_back(
      FlightRow{.session = session.number,
                .sequence = sequence.index,
                .seat = running.seat,
                .tokens = tokens,
                .end_tokens = running.planned_tokens + tokens,
                .ids_max = sample ? 1 : 0,
                .position = running.next_position,
                .logprobs = output.logprobs.has_value(),
                .prompt_logprobs = output.prompt_logprobs.has_value(),
                .prompt_tokens = session.prompt_tokens()});
}

}  // namespace fathom::scheduler
