// What a session gives its client: events, one at a time, everything that waits in one of them; and
// what time does to them.
#include <algorithm>
#include <utility>

#include "common/reason.h"
#include "router/sessions/session.h"

namespace fathom::router {
// -----------------------------------------------------------------------------------

std::optional<ClientEvent> Session::Take(TimeUs now) {
  std::lock_guard lock(mutex_);
  if (writing_ || stream_over_) return std::nullopt;
  std::optional<ClientEvent> event = NextEvent(now);
  if (!event) return event;
  writing_ = true;
  last_write_us_ = now;
  const auto* finish = std::get_if<FinishEvent>(&*event);
  stream_over_ = (finish != nullptr && finish->last) || std::holds_alternative<EndEvent>(*event);
  return event;
}

void Session::WriteDone(TimeUs now) {
  std::lock_guard lock(mutex_);
  writing_ = false;
  last_write_us_ = now;
}

std::optional<ClientEvent> Session::NextEvent(TimeUs now) {
  if (hung_up_) return EndEvent{end_status_};
  if (accepted_) {
    if (!std::exchange(started_sent_, true)) return Started();
    if (auto event = TakePromptLogprobs()) return event;
    for (int32_t i = 0; i < static_cast<int32_t>(sequences_.size()); ++i) {
      if (auto event = TakeTokens(i, now)) return event;
      if (auto event = TakeFinish(i)) return event;
    }
    const bool all_sent =
        std::ranges::all_of(sequences_, [](const Sequence& s) { return s.finish_sent; });
    if (!sequences_.empty() && all_sent) return EndEvent{absl::OkStatus()};
  }
  if (failed_) return EndEvent{end_status_};
  if (std::exchange(keep_alive_due_, false)) return KeepAliveEvent{};
  return std::nullopt;
}

StartedEvent Session::Started() const {
  return {.request_id = key_.request_id,
          .model = record_.model,
          .fingerprint = fingerprint_,
          .seed = record_.seed,
          .prompt_tokens = static_cast<int32_t>(record_.prompt_ids.size()),
          .cached_tokens = cached_tokens_,
          .request = record_.request,
          .stop_strings = text_.stop_strings,
          .include_stop = text_.include_stop};
}

std::optional<ClientEvent> Session::TakePromptLogprobs() {
  const size_t left = record_.prompt_logprobs.size() - prompt_logprobs_sent_;
  if (left == 0) return std::nullopt;
  PromptLogprobs event;
  event.start = static_cast<int32_t>(prompt_logprobs_sent_) + 1;
  const auto from = record_.prompt_logprobs.begin() + static_cast<ptrdiff_t>(prompt_logprobs_sent_);
  const auto count = std::min<size_t>(left, options_.prompt_logprobs_per_event);
  event.logprobs.assign(from, from + static_cast<ptrdiff_t>(count));
  prompt_logprobs_sent_ += count;
  return event;
}

std::optional<ClientEvent> Session::TakeTokens(int32_t index, TimeUs now) {
  Render(index, now);
  Sequence& sequence = sequences_[index];
  const SequenceRecord& record = record_.sequences[index];
  const bool no_text = sequence.pending.text.empty() && sequence.pending.reasoning.empty();
  const int32_t from = std::exchange(sequence.sent, sequence.rendered);
  const bool no_ids =
      from == sequence.rendered || (!text_.want_ids && !record_.request.output.logprobs);
  if (no_text && no_ids) return std::nullopt;
  TokensEvent event;
  event.sequence = index;
  event.position = text_.want_ids ? from : sequence.rendered;
  if (text_.want_ids)
    event.ids.assign(record.ids.begin() + from, record.ids.begin() + sequence.rendered);
  if (record_.request.output.logprobs) {
    event.logprobs.assign(record.logprobs.begin() + from,
                          record.logprobs.begin() + sequence.rendered);
  }
  event.text = std::exchange(sequence.pending.text, {});
  event.reasoning = std::exchange(sequence.pending.reasoning, {});
  return event;
}

std::optional<ClientEvent> Session::TakeFinish(int32_t index) {
  Sequence& sequence = sequences_[index];
  if (!sequence.finish || sequence.finish_sent) return std::nullopt;
  if (sequence.rendered < sequence.finish->position) return std::nullopt;
  sequence.finish_sent = true;
  FinishEvent event = *sequence.finish;
  event.last = std::ranges::all_of(sequences_, [](const Sequence& s) { return s.finish_sent; });
  return event;
}

std::optional<Session::FrameEffects::Cut> Session::TakeCut() {
  std::lock_guard lock(mutex_);
  return std::exchange(cut_, std::nullopt);
}

// ---- Time ----

bool Session::KeepAliveDue(TimeUs now, int64_t silence_us) {
  std::lock_guard lock(mutex_);
  if (!started_sent_ || writing_ || stream_over_ || now - last_write_us_ < silence_us) return false;
  keep_alive_due_ = true;
  return true;
}

int64_t Session::StuckFor(TimeUs now) const {
  std::lock_guard lock(mutex_);
  return writing_ ? now - last_write_us_ : 0;
}

bool Session::EndAtDeadline(TimeUs now, int64_t grace_us) {
  std::lock_guard lock(mutex_);
  if (phase_ == Phase::kOver || deadline_us_ == 0 || now < deadline_us_ + grace_us) return false;
  if (!accepted_) {
    phase_ = Phase::kOver;
    failed_ = true;
    end_status_ =
        WithReason(DeadlineExceeded("the deadline passed before a scheduler took the request"),
                   Reason::kDeadline, "deadline_ms");
    return true;
  }
  for (int32_t i = 0; i < static_cast<int32_t>(sequences_.size()); ++i) {
    if (sequences_[i].finish) continue;
    const Usage usage{static_cast<int32_t>(record_.prompt_ids.size()),
                      static_cast<int32_t>(record_.sequences[i].ids.size()), cached_tokens_};
    EndSequence(i, FinishReason::kDeadline, usage, {}, now);
  }
  return true;
}

}  // namespace fathom::router
