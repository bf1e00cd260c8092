#include "worker/engine/engine.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "kernels/logprob.h"
#include "kernels/non_finite.h"
#include "kernels/sample.h"

namespace fathom::worker {

// A token to compute. Rows of a chunk are neighbours, in ascending positions.
struct Engine::PlannedRow {
  int32_t chunk = 0;  // Index into works_.
  int32_t position = 0;
  bool score = false;   // Its logits give the log-probability of the next prompt token.
  bool sample = false;  // Its logits give the chunk's sample.
  bool logits() const { return score || sample; }
};

struct Engine::Scratch {
  kernels::SampleScratch sample;
};

namespace {

TokenLogprob Score(std::span<const float> logits, int32_t slices, TokenId id, int32_t top) {
  TokenLogprob scored;
  const auto best = static_cast<size_t>(std::clamp<int64_t>(top, 0, std::ssize(logits)));
  scored.id = id;
  scored.top_ids.resize(best);
  scored.top_logprobs.resize(best);
  scored.logprob = kernels::LogprobCpu(
      {logits, slices, id, std::span(scored.top_ids), std::span(scored.top_logprobs)});
  return scored;
}

}  // namespace

Engine::Engine(const EngineParts& parts, const Seat& seat)
    : parts_(parts), seat_(seat), slots_(seat.limits), scratch_(std::make_unique<Scratch>()) {
  FATHOM_CHECK(parts.logits_rows > 0);
  FATHOM_CHECK(parts.comm->rank() == seat.rank && parts.comm->size() == seat.tp);
}

Engine::~Engine() = default;

absl::StatusOr<StepResult> Engine::Execute(const StepPlan& plan) {
  if (plan.term != seat_.term || plan.epoch != seat_.epoch || plan.step != next_step_) {
    return Invalid("a plan of term {}, epoch {}, step {}; term {}, epoch {}, step {} was to come",
                   plan.term.value, plan.epoch.value, plan.step.value, seat_.term.value,
                   seat_.epoch.value, next_step_.value);
  }
  ++next_step_.value;
  FATHOM_RETURN_IF_ERROR(ApplyDeltas(plan));
  StepResult result{plan.term, plan.epoch, plan.step, seat_.rank, {}, {}, 0};
  FATHOM_RETURN_IF_ERROR(BeginChunks(plan, &result.rows));
  const TimeUs begin = parts_.clock->Now();
  const int64_t collective_us = parts_.comm->collective_us();
  FATHOM_RETURN_IF_ERROR(Compute(plan.step, &result.rows));
  result.timings.compute_us = parts_.clock->Now() - begin;
  result.timings.collective_us = parts_.comm->collective_us() - collective_us;
  result.collectives = parts_.comm->collectives();
  if (seat_.rank != 0) result.rows.clear();
  return result;
}

absl::Status Engine::ApplyDeltas(const StepPlan& plan) {
  for (const BlockCopy& copy : plan.copies) {
    FATHOM_RETURN_IF_ERROR(slots_.CheckCopy(copy));
    FATHOM_RETURN_IF_ERROR(parts_.kv->Copy(copy.from, copy.to));
  }
  for (const SlotId slot : plan.releases) FATHOM_RETURN_IF_ERROR(slots_.Release(slot));
  for (const Admit& admit : plan.admits) FATHOM_RETURN_IF_ERROR(slots_.Seat(admit));
  for (const Extend& extend : plan.extends) FATHOM_RETURN_IF_ERROR(slots_.Append(extend));
  return absl::OkStatus();
}

absl::Status Engine::BeginChunks(const StepPlan& plan, std::vector<ResultRow>* results) {
  works_.clear();
  rows_.clear();
  for (const Chunk& chunk : plan.chunks) {
    FATHOM_ASSIGN_OR_RETURN(const ChunkWork work, slots_.Begin(plan.step, chunk));
    const auto index = static_cast<int32_t>(works_.size());
    ResultRow& row = results->emplace_back();
    row.row = index;
    row.sequence = work.slot->sequence;
    row.position = work.slot->position();
    row.fault = work.fault;
    works_.push_back(work);
    if (work.fault != RowFault::kNone) {
      if (work.sample) Slots::Failed(plan.step, work.fault, work.slot);
    } else {
      PlanRows(work, index);
    }
  }
  if (std::ssize(rows_) > seat_.limits.step_tokens) {
    return Invalid("step {} has {} rows; this group computes at most {} in a step", plan.step.value,
                   rows_.size(), seat_.limits.step_tokens);
  }
  return absl::OkStatus();
}

void Engine::PlanRows(const ChunkWork& work, int32_t chunk) {
  for (int32_t position = work.start; position < work.end(); ++position) {
    PlannedRow row{chunk, position, position + 1 < work.prompt_logprobs_last(),
                   work.sample && position + 1 == work.end()};
    rows_.push_back(row);
  }
}

absl::Status Engine::Compute(StepId step, std::vector<ResultRow>* results) {
  // A chunk cut between two passes has the same bits as whole (docs/NUMERICS.md).
  size_t begin = 0;
  while (begin < rows_.size()) {
    size_t end = begin;
    int32_t with_logits = 0;
    while (end < rows_.size()) {
      with_logits += rows_[end].logits() ? 1 : 0;
      if (with_logits > parts_.logits_rows) break;
      ++end;
    }
    FATHOM_RETURN_IF_ERROR(Forward(begin, end, step, results));
    begin = end;
  }
  return absl::OkStatus();
}

absl::Status Engine::Forward(size_t begin, size_t end, StepId step,
                             std::vector<ResultRow>* results) {
  forward_rows_.clear();
  block_tables_.clear();
  int32_t last_chunk = -1;
  for (size_t i = begin; i < end; ++i) {
    const PlannedRow& row = rows_[i];
    const Slot& slot = *works_[static_cast<size_t>(row.chunk)].slot;
    if (row.chunk != last_chunk) block_tables_.push_back(slot.blocks);
    last_chunk = row.chunk;
    forward_rows_.push_back({slot.ids[static_cast<size_t>(row.position)], row.position,
                             static_cast<int32_t>(block_tables_.size()) - 1, row.logits()});
  }
  FATHOM_ASSIGN_OR_RETURN(const std::span<const float> logits,
                          parts_.decoder->Forward({forward_rows_, block_tables_}));
  const auto vocab = static_cast<size_t>(seat_.limits.vocab);
  size_t next = 0;
  for (size_t i = begin; i < end; ++i) {
    if (!rows_[i].logits()) continue;
    FATHOM_CHECK((next + 1) * vocab <= logits.size());
    UseLogits(rows_[i], logits.subspan(vocab * next++, vocab), step,
              &(*results)[static_cast<size_t>(rows_[i].chunk)]);
  }
  return absl::OkStatus();
}

void Engine::UseLogits(const PlannedRow& row, std::span<const float> logits, StepId step,
                       ResultRow* result) {
  const ChunkWork& work = works_[static_cast<size_t>(row.chunk)];
  if (result->fault == RowFault::kNone && kernels::HasNonFiniteCpu(logits)) {
    result->fault = work.slot->fault = RowFault::kNonFiniteLogits;
  }
  if (result->fault == RowFault::kNone && row.score && seat_.rank == 0)
    ScorePrompt(row, logits, result);
  if (!row.sample) return;
  if (result->fault == RowFault::kNone) SampleToken(work, logits, step, result);
  if (result->fault != RowFault::kNone) Slots::Failed(step, result->fault, work.slot);
}

void Engine::ScorePrompt(const PlannedRow& row, std::span<const float> logits, ResultRow* result) {
  const Slot& slot = *works_[static_cast<size_t>(row.chunk)].slot;
  const int32_t scored = row.position + 1;
  if (!result->prompt_logprobs) result->prompt_logprobs = PromptLogprobs{scored, {}};
  result->prompt_logprobs->logprobs.push_back(Score(logits, seat_.tp,
                                                    slot.ids[static_cast<size_t>(scored)],
                                                    *slot.request.output.prompt_logprobs));
}

void Engine::SampleToken(const ChunkWork& work, std::span<const float> logits, StepId step,
                         ResultRow* result) {
  Slot& slot = *work.slot;
  const SamplingParams& sampling = slot.request.sampling;
  kernels::SampleArgs args;
  args.logits = logits;
  args.temperature = sampling.temperature;
  args.top_k = sampling.top_k;
  args.top_p = sampling.top_p;
  args.min_p = sampling.min_p;
  args.repetition_penalty = sampling.repetition_penalty;
  args.presence_penalty = sampling.presence_penalty;
  args.frequency_penalty = sampling.frequency_penalty;
  args.bias = sampling.logit_bias;
  if (slot.position() < slot.request.stop.min_tokens) args.banned = slot.end_ids;
  args.seen = slot.seen.tokens();
  args.seed = slot.seed;
  args.sequence = slot.sequence;
  args.position = slot.position();
  args.scratch = &scratch_->sample;
  const TokenId token = kernels::SampleCpu(args);
  if (token < 0) {  // Bias and masks left nothing to draw from.
    result->fault = RowFault::kTokenOutOfRange;
    return;
  }
  if (seat_.rank == 0) {
    result->ids.push_back(token);
    if (slot.request.output.logprobs) {
      result->logprobs.push_back(Score(logits, seat_.tp, token, *slot.request.output.logprobs));
    }
  }
  Slots::Sampled(step, token, &slot);
}

absl::Status CpuBackend::RunEpoch(const Epoch& epoch, StepChannel& channel,
                                  const std::atomic<bool>& stop, const StepObserver& observer) {
  Engine engine(parts_, epoch.seat());
  const Clock& clock = *parts_.clock;
  Progress& progress = *parts_.progress;
  const auto ended = [&](const absl::Status& status) {
    progress.phase.store(WorkerPhase::kIdle);
    return epoch.aborted() ? epoch.status() : status;
  };
  while (!stop.load()) {
    progress.phase.store(WorkerPhase::kIdle);
    const TimeUs begin = clock.Now();
    absl::StatusOr<StepPlan> plan = channel.Read();
    if (!plan.ok()) return ended(plan.status());
    const TimeUs read_at = clock.Now();
    progress.step.store(plan->step.value);
    progress.word.fetch_add(1);
    progress.phase.store(WorkerPhase::kStepping);
    absl::StatusOr<StepResult> result = engine.Execute(*plan);
    if (!result.ok()) return ended(result.status());
    if (epoch.aborted()) return ended(absl::OkStatus());
    StepStream stream;
    const TimeUs done_at = clock.Now();
    result->timings.read_to_write_us = done_at - read_at;
    absl::Status written = channel.Write(*result);
    if (!written.ok()) return ended(written);
    progress.word.fetch_add(1);
    stream.read_at_us = stream.submit_from_us = read_at;
    stream.read_us = read_at - begin;
    stream.submit_end_us = done_at - result->timings.compute_us;
    stream.collected_at_us = stream.ready_at_us = done_at;
    stream.write_us = clock.Now() - done_at;
    if (observer) observer(*plan, *result, stream);
  }
  return ended(absl::OkStatus());
}

}  // namespace fathom::worker
