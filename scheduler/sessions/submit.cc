// What routers send: Submit (creates a session or updates the one with the same key), Suspend and
// Close.
#include <algorithm>
#include <utility>

#include "common/reason.h"
#include "scheduler/sessions/record_checks.h"
#include "scheduler/sessions/sessions.h"

namespace fathom::scheduler {
namespace {

// The session ended, one of its sequences failed, and every subscriber was sent its end.
bool Failed(const Session& session) {
  return session.finished() && session.subscribers.empty() &&
         std::ranges::any_of(session.sequences, [](const Sequence& sequence) {
           const auto* finished = std::get_if<FinishedState>(&sequence.state);
           return finished != nullptr && !finished->error.ok();
         });
}

// The client has tokens that the record does not have: an earlier leader sent them, and this one
// knows neither them nor the kind of group that made them.
bool IsBehind(const Session& session, const std::vector<int32_t>& have) {
  for (const Sequence& sequence : session.sequences) {
    const auto index = static_cast<size_t>(sequence.index);
    const auto length = std::ssize(sequence.record().ids);
    if (index < have.size() && have[index] > length && !sequence.finished()) return true;
  }
  return false;
}

}  // namespace

void Sessions::On(Routed<Submit> event) {
  Submit& submit = event.message;
  Session* session = table_.Find(submit.key);
  if (!submit.record) {
    if (session != nullptr && !IsBehind(*session, submit.have)) {
      return Accept(*session, event, session->record.prompt_logprobs.size());
    }
    return Refuse(event,
                  WithReason(NotFound("request {}: no record with the client's tokens is held "
                                      "here (they are kept {} s); submit the whole request",
                                      submit.key.request_id, options_.record_keep_us / 1'000'000),
                             Reason::kSessionNotFound, "request_id"));
  }
  absl::Status status = CheckRecord(submit.key, *submit.record, options_.sequences_max);
  if (status.ok() && session != nullptr && !submit.replay && Failed(*session)) {
    table_.Remove(*session);  // The client tries again what failed.
    session = nullptr;
  }
  if (status.ok() && session != nullptr) {
    status = CheckSameSession(session->record, *submit.record);
  } else if (status.ok()) {
    status = CheckNew(submit);
  }
  if (!status.ok()) return Refuse(event, status);
  const size_t prompt_logprobs_known = submit.record->prompt_logprobs.size();
  if (session == nullptr) {
    batching_.Accepted(submit.key);
    session = &Create(&submit);
  } else {
    AdoptLonger(*session, *std::move(submit.record));
  }
  Accept(*session, event, prompt_logprobs_known);
}

void Sessions::Refuse(const Routed<Submit>& event, const absl::Status& status) {
  ++counters_.refused_total;
  batching_.CountRefused(status);
  actions_.refused.push_back({event.router, {event.message.attempt, status}});
}

absl::Status Sessions::CheckNew(const Submit& submit) {
  const Record& record = *submit.record;
  // A request that was accepted before did fit a group then. It is not refused: it waits for such a
  // group, as it does while that group is replaced.
  if (!submit.replay) FATHOM_RETURN_IF_ERROR(batching_.CheckNew(record, submit.deadline_us));
  const int64_t bytes = SessionTable::BytesOf(record, submit.router_blob);
  while (table_.total_bytes() + bytes > options_.session_memory_bytes_max) {
    Session* oldest = table_.OldestKept();
    if (oldest == nullptr) {
      return WithReason(
          Exhausted("request {}: {} bytes of session memory are held by live requests, of "
                    "--session-memory {}; try again later or raise it",
                    submit.key.request_id, table_.total_bytes(), options_.session_memory_bytes_max),
          Reason::kSessionMemoryFull, "", memory_line_.OnRefused(now_));
    }
    table_.Remove(*oldest);
  }
  return absl::OkStatus();
}

Session& Sessions::Create(Submit* submit) {
  Session& session = table_.Create(*std::move(submit->record), std::move(submit->router_blob));
  const int64_t age_us = std::max<int64_t>(submit->age_us, 0);
  session.arrival_us = now_ - age_us;
  session.traceparent = std::move(submit->traceparent);
  for (Sequence& sequence : session.sequences) {
    sequence.seated_before = submit->replay;
    sequence.stamps.Begin(now_, submit->replay ? age_us : 0);
  }
  for (Sequence& sequence : session.sequences) {
    const FinishReason finish = sequence.record().finish;
    if (sequence.finished()) continue;  // It failed together with an earlier one.
    if (finish == FinishReason::kError) {
      Fail(sequence, WithReason(Internal("request {}: it failed under an earlier scheduler",
                                         submit->key.request_id),
                                Reason::kFailedBefore));
    } else if (finish != FinishReason::kNone) {
      Finish(sequence, finish);
    } else {
      FinishIfEnded(sequence);
    }
  }
  return session;
}

void Sessions::AdoptLonger(Session& session, Record submitted) {
  for (size_t i = 0; i < submitted.sequences.size(); ++i) {
    Sequence& sequence = session.sequences[i];
    SequenceRecord& theirs = submitted.sequences[i];
    if (sequence.finished()) continue;
    const size_t their_length = theirs.ids.size();
    if (their_length > sequence.record().ids.size()) {
      // The sequence's slot is now behind its record. A prefill of the record is faster than more
      // decodes in that slot, and it waits for a group of the record's kind.
      batching_.Withdraw(sequence, StayEnd::kBehind);
      sequence.record().ids = std::move(theirs.ids);
      sequence.record().logprobs = std::move(theirs.logprobs);
      if (!theirs.fingerprints.empty()) {
        sequence.record().fingerprints = std::move(theirs.fingerprints);
      }
    }
    const bool same_length = their_length == sequence.record().ids.size();
    if (same_length && theirs.finish != FinishReason::kNone &&
        theirs.finish != FinishReason::kError) {
      Finish(sequence, theirs.finish);
    } else {
      FinishIfEnded(sequence);
    }
  }
  if (submitted.prompt_logprobs.size() > session.record.prompt_logprobs.size()) {
    session.record.prompt_logprobs = std::move(submitted.prompt_logprobs);
  }
  const int64_t bytes = SessionTable::BytesOf(session.record, session.router_blob);
  table_.AddBytes(session, bytes - session.bytes);
  MarkDirty(session);
}

void Sessions::Accept(Session& session, const Routed<Submit>& event, size_t prompt_logprobs_known) {
  const Submit& submit = event.message;
  Accepted accepted{
      .attempt = submit.attempt, .request_id = submit.key.request_id, .seed = session.record.seed};
  if (!submit.record) {
    accepted.record = session.record;
    accepted.router_blob = session.router_blob;
  } else if (!submit.replay && !session.finished()) {
    accepted.cached_tokens =
        std::min(batching_.CachedTokens(session.sequences.front()), session.prompt_tokens());
  }
  actions_.accepted.push_back({event.router, std::move(accepted)});

  Subscriber subscriber{.router = event.router, .attempt = submit.attempt};
  subscriber.cursors.resize(session.sequences.size());
  subscriber.prompt_logprobs_sent = static_cast<int32_t>(prompt_logprobs_known);
  for (size_t i = 0; i < std::min(submit.have.size(), subscriber.cursors.size()); ++i) {
    subscriber.cursors[i].next = std::max(submit.have[i], 0);
  }
  table_.Subscribe(session, std::move(subscriber));
  MarkDirty(session);
  if (session.finished()) return;
  table_.SetKeepUntil(session, 0);
  table_.SetDeadline(session, submit.deadline_us > 0 ? now_ + submit.deadline_us : 0);
  for (Sequence& sequence : session.sequences) {
    if (sequence.suspended()) batching_.Enqueue(sequence);
  }
}

void Sessions::On(const Routed<Suspend>& event) {
  const Suspend& suspend = event.message;
  Session* session = table_.Find(suspend.key);
  if (session == nullptr || !table_.Unsubscribe(*session, event.router, suspend.attempt)) return;
  if (session->subscribers.empty()) SuspendSession(*session);
}

void Sessions::On(const Routed<Close>& event) {
  const Close& close = event.message;
  Session* session = table_.Find(close.key);
  if (session == nullptr || close.sequence < 0 ||
      static_cast<size_t>(close.sequence) >= session->sequences.size()) {
    return;  // The record is gone, so there is nothing to cut.
  }
  Sequence& sequence = session->sequences[static_cast<size_t>(close.sequence)];
  if (sequence.finished()) return;
  SequenceRecord& record = sequence.record();
  const size_t length = std::min(static_cast<size_t>(std::max(close.length, 0)), record.ids.size());
  int64_t bytes = static_cast<int64_t>((record.ids.size() - length) * sizeof(TokenId));
  for (size_t i = length; i < record.logprobs.size(); ++i) {
    bytes += SessionTable::BytesOf(record.logprobs[i]);
  }
  record.ids.resize(length);
  record.logprobs.resize(std::min(length, record.logprobs.size()));
  table_.AddBytes(*session, -bytes);
  const bool known = close.reason != FinishReason::kNone && close.reason != FinishReason::kError;
  Finish(sequence, known ? close.reason : FinishReason::kStopString);
}

}  // namespace fathom::scheduler
