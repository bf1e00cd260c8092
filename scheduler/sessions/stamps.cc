#include "scheduler/sessions/stamps.h"

#include <algorithm>

namespace fathom::scheduler {
namespace {

// The part that the time of a phase counts for; nullptr: none.
int64_t* PartOf(RequestTimings& timings, RequestPhase phase) {
  switch (phase) {
    case RequestPhase::kQueued:
      return &timings.queue_us;
    case RequestPhase::kPrefill:
      return &timings.prefill_us;
    case RequestPhase::kDecode:
      return &timings.decode_us;
    case RequestPhase::kSuspended:
      return &timings.suspended_us;
    case RequestPhase::kReplay:
      return &timings.replay_us;
    case RequestPhase::kEnded:
      break;
  }
  return nullptr;
}

void AddBehind(RequestTimings& timings, const WaitTimes& behind_us) {
  WaitTimes& sum = timings.phase == RequestPhase::kQueued ? timings.queue_behind_us
                                                          : timings.suspended_behind_us;
  for (size_t i = 0; i < kWaitLimits; ++i) sum[i] += behind_us[i];
}

void AddPhase(RequestTimings& timings, int64_t us) {
  if (int64_t* part = PartOf(timings, timings.phase)) *part += us;
}

}  // namespace

void Stamps::Begin(TimeUs now, int64_t earlier_us) {
  start_us_ = since_us_ = now;
  timings_.earlier_us = earlier_us;
}

void Stamps::Wait(TimeUs now, bool first) {
  Move(now, first ? RequestPhase::kQueued : RequestPhase::kSuspended);
}

void Stamps::Waited(const WaitTimes& behind_us) { AddBehind(timings_, behind_us); }

void Stamps::Seat(TimeUs now, GroupId group, EpochId epoch, bool first) {
  Move(now, first ? RequestPhase::kPrefill : RequestPhase::kReplay);
  ++timings_.stays_total;
  if (timings_.stays.size() == kStaysMax) timings_.stays.pop_back();
  timings_.stays.push_back({.group = group, .epoch = epoch, .at_us = now - start_us_});
  chunks_ended_ = timings_.chunks_total;
}

void Stamps::Leave(TimeUs now, StayEnd why) {
  if (!timings_.stays.empty() && timings_.stays.back().end == StayEnd::kNone) {
    Stay& stay = timings_.stays.back();
    stay.us = now - start_us_ - stay.at_us;
    stay.end = why;
    if (timings_.phase != RequestPhase::kDecode) stay.prefill_us = stay.us;
    if (why == StayEnd::kPreempted) ++timings_.preemptions;
    CloseChunks(now);
  }
  Move(now, RequestPhase::kSuspended);
}

void Stamps::End(TimeUs now) { Move(now, RequestPhase::kEnded); }

void Stamps::Move(TimeUs now, RequestPhase next) {
  AddPhase(timings_, now - since_us_);
  since_us_ = now;
  timings_.phase = next;
}

// ---- Chunks and tokens

void Stamps::BeginDecode(TimeUs now) {
  Stay& stay = timings_.stays.back();
  stay.prefill_us = now - start_us_ - stay.at_us;
  Move(now, RequestPhase::kDecode);
}

void Stamps::PlanChunk(TimeUs now, int32_t tokens) {
  ++timings_.chunks_total;
  if (timings_.chunks.size() == kChunksMax) {
    PromptChunk& last = timings_.chunks.back();
    last.tokens += tokens;
    ++last.chunks;
    return;
  }
  timings_.chunks.push_back({now - start_us_, 0, tokens, 1});
}

void Stamps::EndChunk(TimeUs now) {
  if (chunks_ended_ >= timings_.chunks_total) return;
  const size_t index = std::min(static_cast<size_t>(chunks_ended_++), kChunksMax - 1);
  PromptChunk& chunk = timings_.chunks[index];
  chunk.us = now - start_us_ - chunk.at_us;
}

void Stamps::CloseChunks(TimeUs now) {
  while (chunks_ended_ < timings_.chunks_total) EndChunk(now);
}

void Stamps::NoteGap(TimeUs now, int32_t position) {
  if (last_token_us_ < 0) {
    timings_.first_token_us = now - start_us_;
    least_gap_us_ = 0;
    return;
  }
  auto& gaps = timings_.gaps;
  const TokenGap gap{now - last_token_us_, position};
  gaps.insert(std::ranges::upper_bound(gaps, gap.us, std::greater<>(), &TokenGap::us), gap);
  if (gaps.size() > kTokenGapsMax) gaps.pop_back();
  if (gaps.size() == kTokenGapsMax) least_gap_us_ = gaps.back().us;
}

RequestTimings Stamps::At(TimeUs now, const WaitTimes& behind_us) const {
  RequestTimings timings = timings_;
  AddPhase(timings, now - since_us_);
  AddBehind(timings, behind_us);
  if (last_token_us_ >= 0) timings.last_token_us = last_token_us_ - start_us_;
  if (!timings.stays.empty() && timings.stays.back().end == StayEnd::kNone) {
    Stay& stay = timings.stays.back();
    stay.us = now - start_us_ - stay.at_us;
    if (timings_.phase != RequestPhase::kDecode) stay.prefill_us = stay.us;
  }
  return timings;
}

}  // namespace fathom::scheduler
