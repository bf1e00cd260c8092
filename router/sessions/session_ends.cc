// The part of Session that ends its sequences: by the scheduler, or by the router at a stop string.
#include <algorithm>
#include <utility>

#include "router/sessions/session.h"

namespace fathom::router {

// A sequence has the scheduler's end.
void Session::NoteEnd(FrameEffects* effects) const {
  const bool all = AllFinished() && std::ranges::all_of(sequences_, [](const Sequence& sequence) {
                     return sequence.end->by_scheduler;
                   });
  if (all) effects->finished = Finished();
}

void Session::TakeLateEnd(SequenceEnd& end, const Frame& frame, FrameEffects* effects,
                          TimeUs now) const {
  if (!std::exchange(end.by_scheduler, true)) {
    end.event.timings = *frame.timings;
    end.event.timings_known = true;
    end.event.whole_us = now - begun_us_;
    NoteEnd(effects);
  }
  effects->over = IsOver(submit_state_) && !EndOwed();
}

FinishedRequest Session::Finished() const {
  const FinishEvent& last = LastEnd();
  return {.timings = last.timings,
          .timed_tokens = last.usage.completion_tokens,
          .usage = TotalUsage(),
          .max_tokens = record_.request.stop.max_tokens,
          .whole_us = last.total_us};
}

const FinishEvent& Session::LastEnd() const {
  const FinishEvent* last = &sequences_.front().end->event;
  for (const Sequence& sequence : sequences_) {
    if (sequence.end->event.whole_us > last->whole_us) last = &sequence.end->event;
  }
  return *last;
}

// The cached tokens are those of the sequence that had the fewest: the others may have found what
// that one computed.
Usage Session::TotalUsage() const {
  Usage usage{.prompt_tokens = static_cast<int32_t>(record_.prompt_ids.size())};
  for (size_t i = 0; i < sequences_.size(); ++i) {
    usage.completion_tokens += static_cast<int32_t>(record_.sequences[i].ids.size());
    const Usage own = sequences_[i].end ? sequences_[i].end->event.usage : Usage{};
    usage.cached_tokens =
        i == 0 ? own.cached_tokens : std::min(usage.cached_tokens, own.cached_tokens);
    usage.drafted_tokens += own.drafted_tokens;
    usage.accepted_draft_tokens += own.accepted_draft_tokens;
  }
  return usage;
}

bool Session::EndOwed() const {
  if (!std::holds_alternative<FinishedSession>(submit_state_)) return false;
  bool owed = false;
  for (const Sequence& sequence : sequences_) {
    if (sequence.end->by_scheduler) continue;
    // The router ended it at its deadline and does not wait for the scheduler's end.
    if (sequence.end->event.reason != FinishReason::kStopString) return false;
    owed = true;
  }
  return owed;
}

void Session::EndSequence(int32_t index, FinishReason reason, const Usage& usage,
                          const RequestTimings& timings, TimeUs now) {
  SequenceRecord& record = record_.sequences[index];
  FinishEvent finish;
  finish.sequence = index;
  finish.position = static_cast<int32_t>(record.ids.size());
  finish.reason = reason;
  finish.usage = usage;
  finish.timings = timings;
  finish.total_us = now - created_us_;
  finish.whole_us = now - begun_us_;
  finish.fingerprints = record.fingerprints;
  if ((reason == FinishReason::kEndToken || reason == FinishReason::kStopToken) &&
      !record.ids.empty()) {
    finish.stop_token = record.ids.back();
  }
  sequences_[index].end = SequenceEnd{std::move(finish)};
  if (AllFinished() && !IsOver(submit_state_)) submit_state_ = FinishedSession{};
}

bool Session::AllFinished() const {
  return !sequences_.empty() &&
         std::ranges::all_of(sequences_, [](const Sequence& s) { return s.end.has_value(); });
}

bool Session::AllSent() const {
  return !sequences_.empty() &&
         std::ranges::all_of(sequences_, [](const Sequence& s) { return s.end && s.end->sent; });
}

// ---- Stop strings

void Session::CutAtStop(int32_t index, const StopMatch& stop, TimeUs now) {
  SequenceRecord& record = record_.sequences[index];
  Sequence& sequence = sequences_[index];
  if (sequence.end && sequence.end->event.reason == FinishReason::kStopString) {
    // In a resume the end is known. Which string it was is not in the record, so it is set here.
    sequence.end->event.stop_string = text_.stop_strings[stop.index];
    return;
  }
  record.ids.resize(stop.length);
  if (record_.request.output.logprobs) record.logprobs.resize(stop.length);
  if (!sequence.end || !sequence.end->by_scheduler) cuts_.push_back({index, stop.length});
  const Usage usage{.prompt_tokens = static_cast<int32_t>(record_.prompt_ids.size()),
                    .completion_tokens = stop.length,
                    .cached_tokens = CachedTokens()};
  const TimeUs first = first_token_us_ == 0 ? now : first_token_us_;
  // The scheduler's timings come with its answer to the Close, when the client has its end.
  const bool by_scheduler = sequence.end && sequence.end->by_scheduler;
  const bool timings_known = sequence.end && sequence.end->event.timings_known;
  const RequestTimings timings =
      sequence.end ? sequence.end->event.timings
                   : RequestTimings{.prefill_us = first - created_us_, .decode_us = now - first};
  EndSequence(index, FinishReason::kStopString, usage, timings, now);
  sequence.end->by_scheduler = by_scheduler;
  sequence.end->event.timings_known = timings_known;
  sequence.end->event.stop_string = text_.stop_strings[stop.index];
}

std::vector<Session::Cut> Session::TakeCuts() {
  std::lock_guard lock(mutex_);
  return std::exchange(cuts_, {});
}

}  // namespace fathom::router
