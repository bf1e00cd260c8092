#include "scheduler/sessions/record_checks.h"

#include <algorithm>
#include <vector>

#include "common/reason.h"

namespace fathom::scheduler {
namespace {

absl::Status CheckSequences(const Record& record) {
  const std::string& id = record.key.request_id;
  const size_t scored = record.request.output.prompt_logprobs ? record.prompt_ids.size() - 1 : 0;
  if (record.prompt_logprobs.size() > scored) {
    return Invalid(
        "request {}: the record has {} log-probabilities of its prompt; it may have at most {}", id,
        record.prompt_logprobs.size(), scored);
  }
  if (record.sequences.empty()) return absl::OkStatus();
  if (record.sequences.size() != static_cast<size_t>(record.request.sequences)) {
    return Invalid("request {}: the record has {} sequences, the request {}; submit one of each",
                   id, record.sequences.size(), record.request.sequences);
  }
  const int32_t max_tokens = record.request.stop.max_tokens;
  for (const SequenceRecord& sequence : record.sequences) {
    if (sequence.ids.size() > static_cast<size_t>(max_tokens)) {
      return Invalid("request {}: the record has {} tokens, beyond its max_tokens {}", id,
                     sequence.ids.size(), max_tokens);
    }
    const size_t logprobs = record.request.output.logprobs ? sequence.ids.size() : 0;
    if (sequence.logprobs.size() != logprobs) {
      return Invalid(
          "request {}: the record has {} log-probabilities for {} tokens; it must have {}", id,
          sequence.logprobs.size(), sequence.ids.size(), logprobs);
    }
  }
  return absl::OkStatus();
}

std::vector<FingerprintSpan> SpansBefore(const SequenceRecord& record, size_t position) {
  std::vector<FingerprintSpan> spans;
  for (const FingerprintSpan& span : record.fingerprints) {
    if (static_cast<size_t>(span.position) < position) spans.push_back(span);
  }
  return spans;
}

}  // namespace

absl::Status CheckRecord(const SessionKey& key, const Record& record, int32_t sequences_max) {
  const std::string& id = key.request_id;
  if (record.key != key) {
    return WithReason(
        Invalid("request {}: its record is of request {}; submit a record under its own key", id,
                record.key.request_id),
        Reason::kRecordInvalid, "record.key");
  }
  const int32_t n = record.request.sequences;
  if (n < 1) {
    return WithReason(Invalid("request {}: n = {}; ask for at least 1 sequence", id, n),
                      Reason::kOutOfRange, "sampling.n");
  }
  if (n > sequences_max) {
    return WithReason(
        Unimplemented("request {}: n = {} exceeds the {} that this scheduler can do; send "
                      "separate requests with different seeds",
                      id, n, sequences_max),
        Reason::kNotImplemented, "sampling.n");
  }
  if (record.prompt_ids.empty()) {
    return WithReason(Invalid("request {}: the prompt has no token; give at least 1", id),
                      Reason::kEmptyPrompt, "prompt");
  }
  if (record.request.stop.max_tokens < 1) {
    return WithReason(Invalid("request {}: max_tokens = {}; ask for at least 1", id,
                              record.request.stop.max_tokens),
                      Reason::kOutOfRange, "stop.max_tokens");
  }
  const absl::Status sequences = CheckSequences(record);
  return sequences.ok() ? sequences
                        : WithReason(sequences, Reason::kRecordInvalid, "record.sequences");
}

absl::Status CheckSameSession(const Record& held, const Record& submitted) {
  const std::string& id = held.key.request_id;
  if (held.model != submitted.model || held.seed != submitted.seed ||
      held.request != submitted.request || held.grammar != submitted.grammar ||
      held.prompt_ids != submitted.prompt_ids) {
    return WithReason(
        AlreadyExists("request {}: another request is held under this id; repeat the same "
                      "request or use another id",
                      id),
        Reason::kRequestIdInUse, "request_id");
  }
  for (size_t i = 0; i < submitted.sequences.size(); ++i) {
    const std::vector<TokenId>& ours = held.sequences[i].ids;
    const std::vector<TokenId>& theirs = submitted.sequences[i].ids;
    const size_t common = std::min(ours.size(), theirs.size());
    const auto at = static_cast<size_t>(
        std::mismatch(ours.begin(), ours.begin() + static_cast<ptrdiff_t>(common), theirs.begin())
            .first -
        ours.begin());
    if (at < common) {
      return WithReason(
          FailedPrecondition("request {}: token {} of sequence {} is {} here and {} in the "
                             "submitted record; send the request under a new id",
                             id, at, i, ours[at], theirs[at]),
          Reason::kRecordMismatch, "record.sequences");
    }
    const auto our_spans = SpansBefore(held.sequences[i], common);
    const auto their_spans = SpansBefore(submitted.sequences[i], common);
    if (!our_spans.empty() && !their_spans.empty() && our_spans != their_spans) {
      return WithReason(
          FailedPrecondition("request {}: the first {} tokens of sequence {} have other "
                             "fingerprints here than in the submitted record; send it under a new "
                             "id",
                             id, common, i),
          Reason::kFingerprintMismatch, "record.fingerprints");
    }
  }
  return absl::OkStatus();
}

const FingerprintSpan* SpanAt(const SequenceRecord& record, int32_t position) {
  const FingerprintSpan* at = nullptr;
  for (const FingerprintSpan& span : record.fingerprints) {
    if (span.position <= position) at = &span;
  }
  return at;
}

}  // namespace fathom::scheduler
