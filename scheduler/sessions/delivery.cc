#include "scheduler/sessions/delivery.h"

#include <algorithm>

#include "scheduler/sessions/record_checks.h"

namespace fathom::scheduler {
namespace {

class AttemptWriter {
 public:
  AttemptWriter(const Session& session, Subscriber& subscriber, std::vector<Routed<Frame>>* frames)
      : session_(session), subscriber_(subscriber), frames_(*frames) {}

  void Write(const Sequence& sequence) {
    Cursor& cursor = subscriber_.cursors[static_cast<size_t>(sequence.index)];
    if (cursor.ended) return;
    const auto length = static_cast<int32_t>(sequence.record().ids.size());
    // A sequence with a token has all of the prompt's log-probabilities, so the client of any
    // sequence has them before its tokens.
    if (sequence.index == 0) WritePromptLogprobs(sequence, cursor);
    while (cursor.next < length) WriteTokens(sequence, cursor, length);
    if (const auto* finished = std::get_if<FinishedState>(&sequence.state)) {
      WriteEnd(sequence, *finished, length);
      cursor.ended = true;
    }
  }

 private:
  // Appends a new frame at `position`.
  Frame& FrameAt(const Sequence& sequence, int32_t position) {
    Routed<Frame>& out = frames_.emplace_back();
    out.router = subscriber_.router;
    Frame& frame = out.message;
    frame.attempt = subscriber_.attempt;
    frame.sequence = sequence.index;
    frame.position = position;
    const FingerprintSpan* span = SpanAt(sequence.record(), position);
    std::string& sent = subscriber_.cursors[static_cast<size_t>(sequence.index)].fingerprint_sent;
    if (span != nullptr && span->fingerprint != sent) {
      frame.fingerprint = sent = span->fingerprint;
      frame.kind = span->kind;
    }
    open_ = &frame;
    return frame;
  }

  void WritePromptLogprobs(const Sequence& sequence, const Cursor& cursor) {
    const auto& logprobs = session_.record.prompt_logprobs;
    const int32_t sent = subscriber_.prompt_logprobs_sent;
    if (sent == static_cast<int32_t>(logprobs.size())) return;
    Frame& frame = FrameAt(sequence, cursor.next);
    frame.prompt_logprobs = PromptLogprobs{sent + 1, {logprobs.begin() + sent, logprobs.end()}};
    subscriber_.prompt_logprobs_sent = static_cast<int32_t>(logprobs.size());
  }

  // Writes one frame, with tokens of one fingerprint.
  void WriteTokens(const Sequence& sequence, Cursor& cursor, int32_t length) {
    int32_t end = length;
    for (const FingerprintSpan& span : sequence.record().fingerprints) {
      if (span.position > cursor.next) end = std::min(end, span.position);
    }
    Frame& frame = FrameAt(sequence, cursor.next);
    const SequenceRecord& record = sequence.record();
    frame.ids.assign(record.ids.begin() + cursor.next, record.ids.begin() + end);
    if (!record.logprobs.empty()) {
      frame.logprobs.assign(record.logprobs.begin() + cursor.next, record.logprobs.begin() + end);
    }
    cursor.next = end;
  }

  void WriteEnd(const Sequence& sequence, const FinishedState& finished, int32_t length) {
    Frame& frame = open_ != nullptr ? *open_ : FrameAt(sequence, length);
    if (finished.error.ok()) {
      frame.finish = finished.finish;
    } else {
      frame.error = finished.error;
    }
    frame.timings = finished.timings;
  }

  const Session& session_;
  Subscriber& subscriber_;
  std::vector<Routed<Frame>>& frames_;
  Frame* open_ = nullptr;  // The last frame written by this object; it is made for one sequence.
};

}  // namespace

void Deliver(Session& session, std::vector<Routed<Frame>>* frames) {
  for (Subscriber& subscriber : session.subscribers) {
    if (subscriber.lost) continue;
    for (const Sequence& sequence : session.sequences) {
      AttemptWriter(session, subscriber, frames).Write(sequence);
    }
  }
}

}  // namespace fathom::scheduler
