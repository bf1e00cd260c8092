#include "scheduler/sessions/sessions.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/reason.h"
#include "scheduler/sessions/delivery.h"

namespace fathom::scheduler {
namespace {

constexpr size_t kLogLinesMax = 8;  // Of one event.

// kNone: more tokens are to come.
FinishReason EndOf(const std::vector<TokenId>& ids, const StopParams& stop) {
  if (ids.empty()) return FinishReason::kNone;
  const auto is_last = [&](const std::vector<TokenId>& ends) {
    return std::find(ends.begin(), ends.end(), ids.back()) != ends.end();
  };
  if (is_last(stop.end_token_ids)) return FinishReason::kEndToken;
  if (is_last(stop.stop_token_ids)) return FinishReason::kStopToken;
  return ids.size() >= static_cast<size_t>(stop.max_tokens) ? FinishReason::kLength
                                                            : FinishReason::kNone;
}

}  // namespace

// ---- What workers computed

bool Sessions::AppendToken(Sequence& sequence, int32_t position, TokenId id,
                           const TokenLogprob* logprob, const std::string& fingerprint,
                           const ComputeKind& kind) {
  Session& session = *sequence.session;
  SequenceRecord& record = sequence.record();
  if (static_cast<size_t>(position) != record.ids.size()) return false;
  if (!Continues(sequence, position, fingerprint, kind)) return false;
  NoteFingerprint(sequence, position, fingerprint, kind);
  record.ids.push_back(id);
  int64_t bytes = sizeof(TokenId);
  if (logprob != nullptr) {
    bytes += SessionTable::BytesOf(*logprob);
    record.logprobs.push_back(*logprob);
  }
  table_.AddBytes(session, bytes);
  sequence.stamps.Token(now_, position);
  MarkDirty(session);
  FinishIfEnded(sequence);
  return true;
}

void Sessions::AppendPromptLogprobs(Sequence& sequence, const PromptLogprobs& logprobs,
                                    const std::string& fingerprint, const ComputeKind& kind) {
  Session& session = *sequence.session;
  const auto held = static_cast<int32_t>(session.record.prompt_logprobs.size());
  // A replay starts again at the first, and each sequence of a request computes them.
  const int32_t skip = held - (logprobs.start - 1);
  if (skip < 0 || skip >= static_cast<int32_t>(logprobs.logprobs.size())) return;
  const auto position = static_cast<int32_t>(sequence.record().ids.size());
  if (!Continues(sequence, position, fingerprint, kind)) return;
  NoteFingerprint(sequence, position, fingerprint, kind);
  int64_t bytes = 0;
  for (auto it = logprobs.logprobs.begin() + skip; it != logprobs.logprobs.end(); ++it) {
    bytes += SessionTable::BytesOf(*it);
    session.record.prompt_logprobs.push_back(*it);
  }
  table_.AddBytes(session, bytes);
  MarkDirty(session);
}

bool Sessions::Continues(Sequence& sequence, int32_t position, const std::string& fingerprint,
                         const ComputeKind& kind) {
  const auto& spans = sequence.record().fingerprints;
  if (spans.empty()) return BeginsLikeOthers(sequence, fingerprint, kind);
  if (spans.back().fingerprint == fingerprint) return true;
  int32_t sent = 0;  // What a client has, perhaps from an earlier leader.
  for (const Subscriber& subscriber : sequence.session->subscribers) {
    sent = std::max(sent, subscriber.cursors[static_cast<size_t>(sequence.index)].next);
  }
  if (sent <= position) return true;
  Fail(sequence,
       WithReason(FailedPrecondition(
                      "request {}: its client has {} tokens of one kind of group ({}), the "
                      "scheduler has {} of them, and the group that is left is of another kind "
                      "({}), which may compute others; send the request again",
                      sequence.session->record.key.request_id, sent, ToText(spans.back().kind),
                      position, ToText(kind)),
                  Reason::kModelChanged));
  return false;
}

bool Sessions::BeginsLikeOthers(Sequence& sequence, const std::string& fingerprint,
                                const ComputeKind& kind) {
  const FingerprintSpan* other = LastSpan(sequence.session->record);
  if (other == nullptr) return true;
  if (ModelOf(other->kind, other->fingerprint) == ModelOf(kind, fingerprint)) return true;
  if (sequence.running() != nullptr) {
    batching_.Withdraw(sequence, StayEnd::kBehind);
    batching_.Enqueue(sequence);
    CountSuspension(sequence);
  }
  return false;
}

void Sessions::NoteFingerprint(Sequence& sequence, int32_t position, const std::string& fingerprint,
                               const ComputeKind& kind) {
  auto& spans = sequence.record().fingerprints;
  if (!spans.empty() && spans.back().fingerprint == fingerprint) return;
  if (!spans.empty() && spans.back().position == position) spans.pop_back();  // It has no token.
  if (!spans.empty() && spans.back().fingerprint == fingerprint) return;
  const bool first = LastSpan(sequence.session->record) == nullptr;
  if (!spans.empty()) {
    ++counters_.kind_changes_total;
    AddLog(fmt::format(
        "request {}: token {} and those after it are of another kind of group ({}) than those "
        "before ({}); with the first kind they might have been others",
        sequence.session->record.key.request_id, position, ToText(kind),
        ToText(spans.back().kind)));
  }
  spans.push_back({position, fingerprint, kind});
  if (first) QueueOthersAgain(sequence);
}

void Sessions::QueueOthersAgain(const Sequence& begun) {
  for (Sequence& other : begun.session->sequences) {
    if (&other == &begun || !std::holds_alternative<WaitingState>(other.state)) continue;
    batching_.Withdraw(other, StayEnd::kNone);
    batching_.Enqueue(other);
  }
}

void Sessions::CountSuspension(Sequence& sequence) {
  sequence.stamps.CountSuspension();
  ++counters_.suspensions_total;
}

void Sessions::AddLog(std::string line) {
  if (actions_.log.size() < kLogLinesMax) actions_.log.push_back(std::move(line));
}

// ---- The ends of sequences

void Sessions::Finish(Sequence& sequence, FinishReason reason) {
  FinishedState state;
  state.finish.reason = reason;
  state.finish.usage.prompt_tokens = sequence.session->prompt_tokens();
  state.finish.usage.completion_tokens = static_cast<int32_t>(sequence.record().ids.size());
  state.finish.usage.drafted_tokens = sequence.drafted_tokens;
  state.finish.usage.accepted_draft_tokens = sequence.accepted_draft_tokens;
  state.finish.usage.cached_tokens = sequence.cached_tokens;
  ++counters_.finished_total;
  End(sequence, std::move(state));
}

void Sessions::Fail(Sequence& sequence, const absl::Status& error) {
  for (Sequence& each : sequence.session->sequences) {
    if (each.finished()) continue;
    ++counters_.failed_total;
    FinishedState state;
    state.finish.reason = FinishReason::kError;
    state.error = error;
    End(each, std::move(state));
  }
}

void Sessions::End(Sequence& sequence, FinishedState state) {
  FATHOM_CHECK(!sequence.finished(), "sequence {} ended before", sequence.number);
  batching_.Withdraw(sequence, StayEnd::kFinished);
  sequence.stamps.End(now_);
  state.timings = sequence.stamps.At(now_);
  sequence.record().finish = state.finish.reason;
  sequence.state = std::move(state);
  Session& session = *sequence.session;
  if (session.finished()) {
    table_.SetDeadline(session, 0);
    table_.SetKeepUntil(session, now_ + options_.record_keep_us);
    memory_line_.OnFreed(now_);
  }
  MarkDirty(session);
}

void Sessions::FinishIfEnded(Sequence& sequence) {
  const FinishReason reason = EndOf(sequence.record().ids, sequence.session->record.request.stop);
  if (reason != FinishReason::kNone) Finish(sequence, reason);
}

void Sessions::SuspendSession(Session& session) {
  for (Sequence& sequence : session.sequences) {
    if (sequence.finished()) continue;
    batching_.Withdraw(sequence, StayEnd::kClientLeft);
    CountSuspension(sequence);
  }
  table_.SetDeadline(session, 0);
  table_.SetKeepUntil(session, now_ + options_.record_keep_us);
}

// ---- In each step of the core

void Sessions::ExpireTimers() {
  while (Session* session = table_.DeadlinePassed(now_)) {
    table_.SetDeadline(*session, 0);
    for (Sequence& sequence : session->sequences) {
      if (!sequence.finished()) Finish(sequence, FinishReason::kDeadline);
    }
  }
  // Sends the ends at the deadline and drops the subscribers of those sessions. Without this, a
  // session could be removed below with subscribers that wait for its end.
  Deliver();
  for (uint64_t number : table_.ExpireGrace(now_)) {
    Session* session = table_.Find(number);
    if (session->subscribers.empty() && !session->finished()) SuspendSession(*session);
  }
  while (Session* session = table_.KeepPassed(now_)) table_.Remove(*session);
}

void Sessions::MarkDirty(Session& session) {
  if (session.dirty) return;
  session.dirty = true;
  dirty_.push_back(session.number);
}

void Sessions::Deliver() {
  actions_.frames.reserve(actions_.frames.size() + dirty_.size());
  for (uint64_t number : std::exchange(dirty_, {})) {
    Session* session = table_.Find(number);
    if (session == nullptr) continue;
    session->dirty = false;
    scheduler::Deliver(*session, &actions_.frames);
    if (session->finished()) table_.UnsubscribeAll(*session);
  }
}

void Sessions::EvictOverLimit() {
  while (table_.total_bytes() > options_.session_memory_bytes_max) {
    Session* oldest = table_.OldestKept();
    if (oldest == nullptr) return;  // All are live. Only CheckNew can refuse more of them.
    table_.Remove(*oldest);
  }
}

SessionStats Sessions::Stats() const {
  SessionStats stats = counters_;
  stats.sessions = static_cast<int32_t>(table_.size());
  stats.session_bytes = table_.total_bytes();
  return stats;
}

}  // namespace fathom::scheduler
