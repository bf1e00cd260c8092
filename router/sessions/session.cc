#include "router/sessions/session.h"

#include <algorithm>

#include "common/check.h"
#include "router/sessions/session_blob.h"

namespace fathom::router {

Session::Session(const SessionOptions& options, AdmittedRequest admitted,
                 std::shared_ptr<ClientSink> sink, const Tokenizer* tokenizer,
                 std::vector<int32_t> next_positions, TimeUs now)
    : options_(options),
      key_(admitted.record.key),
      tokenizer_(tokenizer),
      created_us_(now),
      idempotency_key_(std::move(admitted.idempotency_key)),
      sink_(std::move(sink)),
      record_(std::move(admitted.record)),
      text_(std::move(admitted.text)),
      seed_given_(admitted.seed_given),
      max_tokens_given_(admitted.max_tokens_given),
      have_record_(true),
      deadline_us_(admitted.deadline_ms > 0 ? now + admitted.deadline_ms * 1000 : 0),
      next_positions_(std::move(next_positions)),
      last_write_us_(now) {
  SetUp();
}

Session::Session(const SessionOptions& options, SessionKey key, std::shared_ptr<ClientSink> sink,
                 const Tokenizer* tokenizer, std::vector<int32_t> next_positions, TimeUs now)
    : options_(options),
      key_(std::move(key)),
      tokenizer_(tokenizer),
      created_us_(now),
      sink_(std::move(sink)),
      next_positions_(std::move(next_positions)),
      last_write_us_(now) {}

// The record is there: per sequence a place for ids and, where text or stop strings are wanted, a
// text stream.
void Session::SetUp() {
  record_.sequences.resize(record_.request.sequences);
  sequences_.resize(record_.sequences.size());
  if (tokenizer_ == nullptr || (!text_.want_text && text_.stop_strings.empty())) return;
  TextStreamOptions options;
  options.keep_special = text_.keep_special;
  options.stop_strings = text_.stop_strings;
  options.include_stop = text_.include_stop;
  options.min_tokens = record_.request.stop.min_tokens;
  if (text_.chat) options.thinking = FindThinkingTokens(*tokenizer_);
  if (options.thinking) {
    options.prompt_opens_thinking =
        PromptOpensThinking(*tokenizer_, *options.thinking, record_.prompt_ids);
  }
  for (Sequence& sequence : sequences_)
    sequence.text = std::make_unique<TextStream>(tokenizer_, options);
}

void Session::Detach() {
  std::lock_guard lock(mutex_);
  sink_.reset();
}

std::shared_ptr<ClientSink> Session::sink() const {
  std::lock_guard lock(mutex_);
  return sink_;
}

// ---- Submitting ----

std::optional<Submit> Session::BeginSubmit(StreamId stream, AttemptId attempt, TimeUs now) {
  std::lock_guard lock(mutex_);
  if (phase_ == Phase::kOver || attempt <= attempt_) return std::nullopt;
  phase_ = Phase::kSending;
  stream_ = stream;
  attempt_ = attempt;
  Submit submit;
  submit.attempt = attempt;
  submit.key = key_;
  submit.replay = accepted_ || replay_;
  submit.age_us = now - created_us_;
  if (have_record_) {
    submit.record = record_;
    submit.router_blob = EncodeBlob(text_);
    bool any = false;
    for (const SequenceRecord& sequence : record_.sequences) {
      submit.have.push_back(static_cast<int32_t>(sequence.ids.size()));
      any = any || !sequence.ids.empty();
    }
    if (!any) submit.record->sequences.clear();
  }
  if (deadline_us_ > 0) submit.deadline_us = std::max<int64_t>(1, deadline_us_ - now);
  return submit;
}

bool Session::EndSubmit(AttemptId attempt) {
  std::lock_guard lock(mutex_);
  if (attempt != attempt_)
    return true;  // A newer attempt is under way; that one's EndSubmit looks again.
  if (phase_ == Phase::kSending) phase_ = Phase::kSubmitted;
  return !hung_up_;
}

absl::Status Session::OnAccepted(Accepted accepted, const std::string& fingerprint, TimeUs now) {
  std::lock_guard lock(mutex_);
  if (phase_ == Phase::kOver || accepted.attempt != attempt_) return absl::OkStatus();
  if (!have_record_) {
    auto text = DecodeBlob(accepted.router_blob);
    absl::Status status = text.status();
    if (status.ok() && (!accepted.record || accepted.record->key != key_)) {
      status = Internal(
          "the scheduler answered a resume of {} without its record; send the request again",
          key_.request_id);
    }
    if (!status.ok()) {
      phase_ = Phase::kOver;
      failed_ = true;
      end_status_ = status;
      return status;
    }
    record_ = *std::move(accepted.record);
    for (SequenceRecord& sequence : record_.sequences) sequence.finish = FinishReason::kNone;
    text_ = *std::move(text);
    have_record_ = true;
    SetUp();
    for (size_t i = 0; i < sequences_.size(); ++i) Render(static_cast<int32_t>(i), now);
  }
  record_.seed = accepted.seed;
  if (!accepted_) cached_tokens_ = accepted.cached_tokens;
  accepted_ = true;
  fingerprint_ =
      record_.fingerprints.empty() ? fingerprint : record_.fingerprints.front().fingerprint;
  return absl::OkStatus();
}

void Session::Fail(absl::Status status) {
  std::lock_guard lock(mutex_);
  if (phase_ == Phase::kOver) return;
  phase_ = Phase::kOver;
  failed_ = true;
  end_status_ = std::move(status);
}

std::optional<Session::Subscription> Session::HangUp(absl::Status status) {
  std::lock_guard lock(mutex_);
  if (!hung_up_ && !stream_over_) {
    hung_up_ = true;
    end_status_ = std::move(status);
  }
  const bool subscribed = phase_ == Phase::kSubmitted;
  // While a Submit is being handed over, EndSubmit tells its caller.
  if (phase_ != Phase::kOver) phase_ = Phase::kOver;
  if (!subscribed) return std::nullopt;
  return Subscription{stream_, attempt_};
}

// ---- Frames ----

std::string Session::CheckFrame(const Frame& frame) const {
  if (!accepted_) return "a frame came before Accepted";
  if (frame.sequence < 0 || frame.sequence >= static_cast<int32_t>(sequences_.size())) {
    return fmt::format("a frame of sequence {}, of {}", frame.sequence, sequences_.size());
  }
  const int64_t length = static_cast<int64_t>(record_.sequences[frame.sequence].ids.size());
  const int64_t end = int64_t{frame.position} + static_cast<int64_t>(frame.ids.size());
  if (frame.position < 0 || (frame.position > length && !(frame.ids.empty() && !frame.finish))) {
    return fmt::format("a frame of position {} where {} is next", frame.position, length);
  }
  if (frame.finish && end < length) return fmt::format("an end at {} after {} tokens", end, length);
  if (record_.request.output.logprobs && frame.logprobs.size() != frame.ids.size()) {
    return fmt::format("{} log-probabilities for {} tokens", frame.logprobs.size(),
                       frame.ids.size());
  }
  return {};
}

void Session::AppendIds(Frame& frame, FrameEffects* effects, TimeUs now) {
  SequenceRecord& record = record_.sequences[frame.sequence];
  const auto length = static_cast<int64_t>(record.ids.size());
  const int64_t known =
      std::min<int64_t>(length - frame.position, static_cast<int64_t>(frame.ids.size()));
  effects->dropped_tokens = frame.ids.empty() ? 0 : known;
  effects->new_tokens = static_cast<int64_t>(frame.ids.size()) - effects->dropped_tokens;
  if (effects->new_tokens == 0) return;
  record.ids.insert(record.ids.end(), frame.ids.begin() + known, frame.ids.end());
  if (record_.request.output.logprobs) {
    record.logprobs.insert(record.logprobs.end(),
                           std::make_move_iterator(frame.logprobs.begin() + known),
                           std::make_move_iterator(frame.logprobs.end()));
  }
  effects->first_token = first_token_us_ == 0;
  if (effects->first_token) first_token_us_ = now;
  effects->gap_us = now - (last_token_us_ == 0 ? created_us_ : last_token_us_);
  last_token_us_ = now;
}

void Session::AppendPromptLogprobs(PromptLogprobs& logprobs) {
  for (size_t i = 0; i < logprobs.logprobs.size(); ++i) {
    const auto next = static_cast<int32_t>(record_.prompt_logprobs.size()) + 1;
    if (logprobs.start + static_cast<int32_t>(i) != next) continue;  // A replay's.
    record_.prompt_logprobs.push_back(std::move(logprobs.logprobs[i]));
  }
}

Session::FrameEffects Session::OnFrame(Frame& frame, TimeUs now) {
  FrameEffects effects;
  std::lock_guard lock(mutex_);
  if (phase_ == Phase::kOver || frame.attempt != attempt_) return effects;
  effects.broken = CheckFrame(frame);
  if (!effects.broken.empty()) return effects;
  Sequence& sequence = sequences_[frame.sequence];
  if (sequence.finish) return effects;

  if (frame.prompt_logprobs) AppendPromptLogprobs(*frame.prompt_logprobs);
  const std::string& last =
      record_.fingerprints.empty() ? "" : record_.fingerprints.back().fingerprint;
  if (!frame.fingerprint.empty() && frame.fingerprint != last) {
    const auto position = static_cast<int32_t>(record_.sequences[frame.sequence].ids.size());
    record_.fingerprints.push_back({position, frame.fingerprint, frame.kind});
  }
  AppendIds(frame, &effects, now);
  if (!frame.error.ok()) {
    failed_ = true;
    sequence_failed_ = true;
    end_status_ = frame.error;
    phase_ = Phase::kOver;
  } else if (frame.finish) {
    sequence.upstream_over = true;
    EndSequence(frame.sequence, frame.finish->reason, frame.finish->usage, frame.finish->timings,
                now);
  }
  Render(frame.sequence, now);
  effects.close = std::exchange(cut_, std::nullopt);
  effects.over = phase_ == Phase::kOver;
  return effects;
}

void Session::EndSequence(int32_t index, FinishReason reason, const Usage& usage,
                          const SequenceTimings& timings, TimeUs now) {
  SequenceRecord& record = record_.sequences[index];
  FinishEvent finish;
  finish.sequence = index;
  finish.position = static_cast<int32_t>(record.ids.size());
  finish.reason = reason;
  finish.usage = usage;
  finish.timings = timings;
  finish.total_us = now - created_us_;
  finish.fingerprints = record_.fingerprints;
  if ((reason == FinishReason::kEndToken || reason == FinishReason::kStopToken) &&
      !record.ids.empty()) {
    finish.stop_token = record.ids.back();
  }
  sequences_[index].finish = std::move(finish);
  if (AllFinished()) phase_ = Phase::kOver;
}

bool Session::AllFinished() const {
  return !sequences_.empty() &&
         std::ranges::all_of(sequences_, [](const Sequence& s) { return s.finish.has_value(); });
}

// ---- Text ----

// The token that ends a sequence is no text, unless asked for.
bool Session::IsSilentEnd(TokenId id) const {
  const StopParams& stop = record_.request.stop;
  if (std::ranges::find(stop.stop_token_ids, id) != stop.stop_token_ids.end())
    return !text_.include_stop;
  if (std::ranges::find(stop.end_token_ids, id) != stop.end_token_ids.end())
    return !text_.keep_special;
  return false;
}

int32_t Session::ClientHas(int32_t index) const {
  return index < static_cast<int32_t>(next_positions_.size()) ? next_positions_[index] : 0;
}

// Renders as far as the client may lag behind. What a resuming client has is rendered and thrown
// away.
void Session::Render(int32_t index, TimeUs now) {
  Sequence& sequence = sequences_[index];
  const std::vector<TokenId>& ids = record_.sequences[index].ids;
  const int32_t has = ClientHas(index);
  while (sequence.rendered < static_cast<int32_t>(ids.size()) &&
         sequence.rendered - sequence.sent < options_.ids_per_event &&
         sequence.pending.text.size() + sequence.pending.reasoning.size() <
             options_.render_ahead_bytes) {
    const TokenId id = ids[sequence.rendered++];
    if (sequence.text && !IsSilentEnd(id)) sequence.text->Append({&id, 1}, &sequence.pending);
    if (sequence.rendered <= has || !text_.want_text) sequence.pending = {};
    if (sequence.rendered <= has) sequence.sent = sequence.rendered;
    if (sequence.text && sequence.text->stop()) {
      // Its length counts what was pushed; ids and pushes are the same up to here.
      CutAtStop(index, {sequence.text->stop()->index, sequence.rendered}, now);
      break;
    }
  }
  if (!sequence.finish || sequence.rendered < static_cast<int32_t>(ids.size())) return;
  if (sequence.text) {
    const bool stopped = sequence.text->stop().has_value();
    sequence.text->Finish(&sequence.pending);
    if (!stopped && sequence.text->stop()) {
      CutAtStop(index, {sequence.text->stop()->index, sequence.rendered}, now);
    }
    sequence.text.reset();
    if (!text_.want_text || has > sequence.rendered) sequence.pending = {};
  }
  if (has > sequence.rendered) sequence.finish_sent = true;
}

void Session::CutAtStop(int32_t index, const StopMatch& stop, TimeUs now) {
  SequenceRecord& record = record_.sequences[index];
  Sequence& sequence = sequences_[index];
  if (sequence.finish && sequence.finish->reason == FinishReason::kStopString) {
    // Known: a resume. Only the router that cut it knew which string it was.
    sequence.finish->stop_string = text_.stop_strings[stop.index];
    return;
  }
  record.ids.resize(stop.length);
  if (record_.request.output.logprobs) record.logprobs.resize(stop.length);
  if (!sequence.upstream_over) cut_ = FrameEffects::Cut{index, stop.length};
  const Usage usage{static_cast<int32_t>(record_.prompt_ids.size()), stop.length, cached_tokens_};
  const TimeUs first = first_token_us_ == 0 ? now : first_token_us_;
  const SequenceTimings timings =
      sequence.finish
          ? sequence.finish->timings
          : SequenceTimings{.prefill_us = first - created_us_, .decode_us = now - first};
  EndSequence(index, FinishReason::kStopString, usage, timings, now);
  sequence.finish->stop_string = text_.stop_strings[stop.index];
}

// ---- What it is ----

bool Session::over() const {
  std::lock_guard lock(mutex_);
  return phase_ == Phase::kOver;
}

bool Session::resumable() const {
  std::lock_guard lock(mutex_);
  return have_record_ && !sequence_failed_ && (accepted_ || !failed_);
}

bool Session::has_record() const {
  std::lock_guard lock(mutex_);
  return have_record_;
}

bool Session::accepted() const {
  std::lock_guard lock(mutex_);
  return accepted_;
}

AttemptId Session::attempt() const {
  std::lock_guard lock(mutex_);
  return attempt_;
}

size_t Session::bytes() const {
  std::lock_guard lock(mutex_);
  size_t bytes = sizeof(Session) + record_.prompt_ids.size() * sizeof(TokenId);
  const auto add = [&](const std::vector<TokenLogprob>& logprobs) {
    for (const TokenLogprob& logprob : logprobs) {
      bytes += sizeof(logprob) + logprob.top_ids.size() * (sizeof(TokenId) + sizeof(float));
    }
  };
  add(record_.prompt_logprobs);
  for (const SequenceRecord& sequence : record_.sequences) {
    bytes += sequence.ids.size() * sizeof(TokenId);
    add(sequence.logprobs);
  }
  return bytes;
}

std::string Session::outcome() const {
  std::lock_guard lock(mutex_);
  if (!sequences_.empty() && sequences_[0].finish)
    return FinishReasonName(sequences_[0].finish->reason);
  if (failed_) return std::string(CodeName(end_status_.code()));
  return "SUSPENDED";
}

Session::Snapshot Session::snapshot() const {
  std::lock_guard lock(mutex_);
  Snapshot snapshot;
  snapshot.admitted.record = record_;
  snapshot.admitted.text = text_;
  snapshot.admitted.idempotency_key = idempotency_key_;
  snapshot.admitted.seed_given = seed_given_;
  snapshot.admitted.max_tokens_given = max_tokens_given_;
  snapshot.accepted = accepted_;
  snapshot.cached_tokens = cached_tokens_;
  snapshot.fingerprint = fingerprint_;
  for (const Sequence& sequence : sequences_) snapshot.finishes.push_back(sequence.finish);
  return snapshot;
}

bool Session::Adopt(Snapshot snapshot) {
  std::lock_guard lock(mutex_);
  FATHOM_CHECK(attempt_.value == 0 && snapshot.finishes.size() == sequences_.size());
  cached_tokens_ = snapshot.cached_tokens;
  fingerprint_ = std::move(snapshot.fingerprint);
  replay_ = snapshot.accepted;
  for (size_t i = 0; i < sequences_.size(); ++i)
    sequences_[i].finish = std::move(snapshot.finishes[i]);
  if (!AllFinished()) return false;
  phase_ = Phase::kOver;
  accepted_ = true;
  return true;
}

bool Session::SameRequest(const AdmittedRequest& other) const {
  std::lock_guard lock(mutex_);
  if (!have_record_) return false;
  Request request = other.record.request;
  if (!other.max_tokens_given) request.stop.max_tokens = record_.request.stop.max_tokens;
  return record_.request == request && record_.prompt_ids == other.record.prompt_ids &&
         text_.stop_strings == other.text.stop_strings &&
         text_.include_stop == other.text.include_stop &&
         (!other.seed_given || record_.seed == other.record.seed);
}

}  // namespace fathom::router
