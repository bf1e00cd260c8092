// The part of Session that makes the client's events, and what happens after certain times.
#include <algorithm>
#include <utility>

#include "common/reason.h"
#include "router/sessions/session.h"

namespace fathom::router {
namespace {

bool IsLast(const ClientEvent& event) {
  const auto* finish = std::get_if<FinishEvent>(&event);
  return (finish != nullptr && finish->last) || std::holds_alternative<EndEvent>(event);
}

}  // namespace

std::optional<ClientEvent> Session::Take(TimeUs now) {
  std::lock_guard lock(mutex_);
  if (writing_) return std::nullopt;
  std::optional<ClientEvent> event;
  if (auto* left = std::get_if<LeftClient>(&client_state_)) {
    if (!std::exchange(left->told, true)) event = EndEvent{left->status};
  } else if (auto* streaming = std::get_if<StreamingClient>(&client_state_)) {
    event = NextEvent(*streaming, now);
    if (event && IsLast(*event)) client_state_ = EndedClient{};
  }
  if (!event) return event;
  writing_ = true;
  last_write_us_ = now;
  return event;
}

void Session::WriteDone(TimeUs now) {
  std::lock_guard lock(mutex_);
  writing_ = false;
  last_write_us_ = now;
}

std::optional<ClientEvent> Session::NextEvent(StreamingClient& client, TimeUs now) {
  if (const auto* accepted = std::get_if<AcceptedRecord>(&acceptance_)) {
    if (!std::exchange(client.started_sent, true)) return Started(*accepted);
    if (auto event = TakePromptLogprobs(client)) return event;
    // In turn, so that a client that reads slowly gets the tokens of all sequences.
    for (size_t tried = 0; tried < sequences_.size(); ++tried) {
      const int32_t index = turn_;
      turn_ = (turn_ + 1) % static_cast<int32_t>(sequences_.size());
      if (auto event = TakeTokens(index, now)) return event;
      if (auto event = TakeFinish(index)) return event;
    }
    if (AllSent()) return EndEvent{absl::OkStatus()};
  }
  if (const auto* failed = std::get_if<FailedSession>(&submit_state_)) {
    return EndEvent{failed->status};
  }
  if (std::exchange(client.keep_alive_due, false)) return KeepAliveEvent{};
  return std::nullopt;
}

StartedEvent StartedOf(const Record& record, const TextOptions& text) {
  return {.request_id = record.key.request_id,
          .model = record.model,
          .seed = record.seed,
          .prompt_tokens = static_cast<int32_t>(record.prompt_ids.size()),
          .request = record.request,
          .stop_strings = text.stop_strings,
          .include_stop = text.include_stop};
}

StartedEvent Session::Started(const AcceptedRecord& accepted) const {
  StartedEvent started = StartedOf(record_, text_);
  started.request_id = key_.request_id;
  started.fingerprint = accepted.fingerprint;
  started.cached_tokens = accepted.cached_tokens;
  return started;
}

std::optional<ClientEvent> Session::TakePromptLogprobs(StreamingClient& client) {
  const size_t left = record_.prompt_logprobs.size() - client.prompt_logprobs_sent;
  if (left == 0) return std::nullopt;
  PromptLogprobs event;
  event.start = static_cast<int32_t>(client.prompt_logprobs_sent) + 1;
  const auto from =
      record_.prompt_logprobs.begin() + static_cast<ptrdiff_t>(client.prompt_logprobs_sent);
  const auto count = std::min<size_t>(left, options_.prompt_logprobs_per_event);
  event.logprobs.assign(from, from + static_cast<ptrdiff_t>(count));
  client.prompt_logprobs_sent += count;
  return event;
}

std::optional<ClientEvent> Session::TakeTokens(int32_t index, TimeUs now) {
  Render(index, now);
  Sequence& sequence = sequences_[index];
  const SequenceRecord& record = record_.sequences[index];
  const bool no_text = sequence.pending.empty();
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
  event.calls = std::exchange(sequence.pending.calls, {});
  return event;
}

std::optional<ClientEvent> Session::TakeFinish(int32_t index) {
  Sequence& sequence = sequences_[index];
  if (!sequence.end || sequence.end->sent) return std::nullopt;
  if (sequence.rendered < sequence.end->event.position) return std::nullopt;
  sequence.end->sent = true;
  FinishEvent event = sequence.end->event;
  event.last = AllSent();
  event.calls_tools = sequence.calls_tools;
  return event;
}

// ---- How it ended, and where its time went ----

std::string Session::outcome() const {
  std::lock_guard lock(mutex_);
  return Outcome();
}

bool Session::repeats() const {
  std::lock_guard lock(mutex_);
  return repeats_;
}

std::string Session::Outcome() const {
  if (AllFinished()) return FinishReasonName(LastEnd().reason);
  const auto* failed = std::get_if<FailedSession>(&submit_state_);
  const auto* left = std::get_if<LeftClient>(&client_state_);  // This client got another status.
  if (failed == nullptr) {
    return left != nullptr && absl::IsCancelled(left->status) ? "CANCELLED" : "SUSPENDED";
  }
  return std::string(CodeName((left == nullptr ? failed->status : left->status).code()));
}

RequestReport Session::Report(TimeUs now) const {
  std::lock_guard lock(mutex_);
  return MakeReport(now);
}

// After a stop string the scheduler's end is still to come.
RequestReport Session::LastReport(TimeUs now, bool* complete) {
  std::lock_guard lock(mutex_);
  RequestReport report = MakeReport(now);
  report_owed_ = !repeats_ && EndOwed();
  *complete = !report_owed_;
  return report;
}

bool Session::TakeOwedReport() {
  std::lock_guard lock(mutex_);
  return std::exchange(report_owed_, false);
}

RequestReport Session::MakeReport(TimeUs now) const {
  RequestReport report;
  report.key = key_;
  report.trace = trace_;
  report.chat = text_.chat;
  report.model = record_.model;
  report.accepted = IsAccepted(acceptance_);
  report.submits = submits_;
  report.max_tokens = record_.request.stop.max_tokens;
  report.begun_us = begun_us_;
  report.whole_us = now - begun_us_;
  report.first_token_us = first_token_after_us_;
  report.sequences = record_.request.sequences;
  report.usage = TotalUsage();
  const bool ended = AllFinished();
  report.outcome = ended || IsOver(submit_state_) ? Outcome() : "RUNNING";
  if (ended) {
    const FinishEvent& end = LastEnd();
    report.whole_us = end.whole_us;
    if (end.timings_known) report.Take(end.timings, end.whole_us);
  } else if (const auto* failed = std::get_if<FailedSession>(&submit_state_)) {
    report.reason = DetailOf(failed->status).value_or(ErrorDetail{}).reason;
    report.message = std::string(Message(failed->status));
    if (failed_timings_) report.Take(*failed_timings_, report.whole_us);
  }
  return report;
}

// ---- Time ----

bool Session::KeepAliveDue(TimeUs now, int64_t silence_us) {
  std::lock_guard lock(mutex_);
  auto* streaming = std::get_if<StreamingClient>(&client_state_);
  if (streaming == nullptr || !streaming->started_sent) return false;
  if (writing_ || now - last_write_us_ < silence_us) return false;
  streaming->keep_alive_due = true;
  return true;
}

int64_t Session::StuckFor(TimeUs now) const {
  std::lock_guard lock(mutex_);
  return writing_ ? now - last_write_us_ : 0;
}

bool Session::EndAtDeadline(TimeUs now, int64_t grace_us) {
  std::lock_guard lock(mutex_);
  if (IsOver(submit_state_) || deadline_us_ == 0 || now < deadline_us_ + grace_us) return false;
  if (!IsAccepted(acceptance_)) {
    submit_state_ = FailedSession{
        WithReason(DeadlineExceeded("the deadline passed before a scheduler took the request"),
                   Reason::kDeadline, "deadline_ms")};
    return true;
  }
  for (int32_t i = 0; i < static_cast<int32_t>(sequences_.size()); ++i) {
    if (sequences_[i].end) continue;
    const Usage usage{.prompt_tokens = static_cast<int32_t>(record_.prompt_ids.size()),
                      .completion_tokens = static_cast<int32_t>(record_.sequences[i].ids.size()),
                      .cached_tokens = CachedTokens()};
    EndSequence(i, FinishReason::kDeadline, usage, {}, now);
  }
  return true;
}

}  // namespace fathom::router
