#include "router/sessions/session.h"

#include <algorithm>

#include "common/check.h"
#include "common/process.h"
#include "common/reason.h"
#include "router/sessions/session_blob.h"

namespace fathom::router {

namespace {

// The fingerprint of the record's first token; `fallback`: it has none.
std::string FirstFingerprint(const Record& record, const std::string& fallback) {
  for (const SequenceRecord& sequence : record.sequences) {
    if (!sequence.fingerprints.empty()) return sequence.fingerprints.front().fingerprint;
  }
  return fallback;
}

// `form`: TextOptions::reasoning_form.
std::optional<ThinkingForm> ThinkingOf(const std::string& form, const Tokenizer& tokenizer) {
  if (form.empty()) return DetectThinkingForm(tokenizer);
  if (form == "none") return std::nullopt;
  auto found = FindThinkingForm(form, tokenizer);
  return found.ok() ? std::optional(*std::move(found)) : std::nullopt;
}

size_t PendingBytes(const TextDelta& delta) {
  size_t bytes = delta.text.size() + delta.reasoning.size();
  for (const ToolCallDelta& call : delta.calls) bytes += sizeof(call) + call.arguments.size();
  return bytes;
}

// A repeated stream gives a call the same id again.
std::string ToolCallId(const SessionKey& key, int32_t sequence, int32_t call) {
  return "call_" + Sha256Hex(fmt::format("{}/{}/{}", key.request_id, sequence, call)).substr(0, 24);
}

}  // namespace

absl::Status CheckNextPositions(const Record& record, const std::vector<int32_t>& positions) {
  if (positions.size() <= static_cast<size_t>(record.request.sequences)) return absl::OkStatus();
  return WithReason(
      Invalid("next_positions has {} entries; the request has {} sequences; give at most one for "
              "each",
              positions.size(), record.request.sequences),
      Reason::kOutOfRange, "next_positions");
}

Session::Session(const SessionOptions& options, AdmittedRequest admitted,
                 std::shared_ptr<ClientSink> sink, const Tokenizer* tokenizer,
                 std::vector<int32_t> next_positions, TimeUs now)
    : options_(options),
      key_(admitted.record.key),
      tokenizer_(tokenizer),
      created_us_(now),
      idempotency_key_(std::move(admitted.idempotency_key)),
      trace_(std::move(admitted.trace)),
      sink_(std::move(sink)),
      record_(std::move(admitted.record)),
      text_(std::move(admitted.text)),
      seed_given_(admitted.seed_given),
      max_tokens_given_(admitted.max_tokens_given),
      deadline_us_(admitted.deadline_ms > 0 ? now + admitted.deadline_ms * 1000 : 0),
      next_positions_(std::move(next_positions)),
      acceptance_(NewRecord{}),
      begun_us_(now),
      last_write_us_(now) {
  SetUp();
}

Session::Session(const SessionOptions& options, SessionKey key, std::shared_ptr<ClientSink> sink,
                 const Tokenizer* tokenizer, std::vector<int32_t> next_positions, TimeUs now,
                 SpanContext trace)
    : options_(options),
      key_(std::move(key)),
      tokenizer_(tokenizer),
      created_us_(now),
      trace_(std::move(trace)),
      sink_(std::move(sink)),
      next_positions_(std::move(next_positions)),
      begun_us_(now),
      last_write_us_(now) {}

// Called when the session has its record. Makes room for the ids of each sequence and, if text or
// stop strings are wanted, its text stream.
void Session::SetUp() {
  record_.sequences.resize(record_.request.sequences);
  sequences_.resize(record_.sequences.size());
  if (tokenizer_ == nullptr || (!text_.want_text && text_.stop_strings.empty())) return;
  TextStreamOptions options;
  options.keep_special = text_.keep_special;
  options.stop_strings = text_.stop_strings;
  options.include_stop = text_.include_stop;
  options.min_tokens = record_.request.stop.min_tokens;
  if (text_.chat) options.thinking = ThinkingOf(text_.reasoning_form, *tokenizer_);
  if (!text_.call_form.empty()) {
    auto form = FindToolCallForm(text_.call_form, *tokenizer_);
    if (form.ok()) options.calls = *std::move(form);
    options.tool_names = text_.tool_names;
    if (!text_.parallel_calls) options.calls_max = 1;
  }
  if (options.thinking) {
    options.prompt_opens_thinking =
        PromptOpensThinking(*tokenizer_, *options.thinking, record_.prompt_ids);
  }
  for (Sequence& sequence : sequences_)
    sequence.text = std::make_unique<TextStream>(tokenizer_, options);
}

void Session::Begin() {
  std::lock_guard lock(mutex_);
  if (std::holds_alternative<UnbegunClient>(client_state_)) client_state_ = StreamingClient{};
}

bool Session::begun() const {
  std::lock_guard lock(mutex_);
  return !std::holds_alternative<UnbegunClient>(client_state_);
}

void Session::Detach() {
  std::lock_guard lock(mutex_);
  sink_.reset();
}

std::shared_ptr<ClientSink> Session::sink() const {
  std::lock_guard lock(mutex_);
  return std::holds_alternative<UnbegunClient>(client_state_) ? nullptr : sink_;
}

// ---- Submitting ----

std::optional<Submit> Session::BeginSubmit(StreamId stream, AttemptId attempt, TimeUs now) {
  std::lock_guard lock(mutex_);
  if (IsOver(submit_state_) || attempt <= attempt_) return std::nullopt;
  submit_state_ = SendingSubmit{stream};
  attempt_ = attempt;
  ++submits_;
  Submit submit;
  submit.attempt = attempt;
  submit.key = key_;
  submit.replay =
      IsAccepted(acceptance_) || std::holds_alternative<RecordAcceptedBefore>(acceptance_);
  submit.age_us = now - created_us_;
  submit.traceparent = FormatTraceparent(trace_.context);
  if (HasRecord(acceptance_)) {
    submit.record = record_;
    submit.router_blob = EncodeBlob(text_);
    bool any = false;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      SequenceRecord& sequence = submit.record->sequences[i];
      // A new leader does not compute a sequence that has ended.
      if (sequences_[i].end) sequence.finish = sequences_[i].end->event.reason;
      submit.have.push_back(static_cast<int32_t>(sequence.ids.size()));
      any = any || !sequence.ids.empty() || !sequence.fingerprints.empty() || sequences_[i].end;
    }
    if (!any) submit.record->sequences.clear();
  }
  if (deadline_us_ > 0) submit.deadline_us = std::max<int64_t>(1, deadline_us_ - now);
  return submit;
}

bool Session::EndSubmit(AttemptId attempt) {
  std::lock_guard lock(mutex_);
  if (attempt != attempt_)
    return true;  // The EndSubmit of the newer attempt checks whether the client left.
  if (const auto* sending = std::get_if<SendingSubmit>(&submit_state_)) {
    submit_state_ = Subscribed{sending->stream};
  }
  return !std::holds_alternative<LeftClient>(client_state_);
}

absl::Status Session::OnAccepted(Accepted accepted, const std::string& fingerprint, TimeUs now) {
  std::lock_guard lock(mutex_);
  if (IsOver(submit_state_) || accepted.attempt != attempt_) return absl::OkStatus();
  const bool had_record = HasRecord(acceptance_);
  if (!had_record) {
    auto text = DecodeBlob(accepted.router_blob);
    absl::Status status = text.status();
    if (status.ok() && (!accepted.record || accepted.record->key != key_)) {
      status = Internal(
          "the scheduler answered a resume of {} without its record; send the request again",
          key_.request_id);
    }
    if (!status.ok()) {
      submit_state_ = FailedSession{status};
      return status;
    }
    status = CheckNextPositions(*accepted.record, next_positions_);
    if (!status.ok()) {
      submit_state_ = FailedSession{status};
      return status;
    }
    record_ = *std::move(accepted.record);
    for (SequenceRecord& sequence : record_.sequences) sequence.finish = FinishReason::kNone;
    text_ = *std::move(text);
  }
  record_.seed = accepted.seed;
  if (!IsAccepted(acceptance_)) {
    acceptance_ = AcceptedRecord{.cached_tokens = accepted.cached_tokens};
  }
  std::get<AcceptedRecord>(acceptance_).fingerprint = FirstFingerprint(record_, fingerprint);
  if (had_record) {
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const auto& end = sequences_[i].end;
      if (!end || end->by_scheduler || end->event.reason != FinishReason::kStopString) continue;
      cuts_.push_back({static_cast<int32_t>(i), end->event.position});
    }
    return absl::OkStatus();
  }
  SetUp();
  for (size_t i = 0; i < sequences_.size(); ++i) Render(static_cast<int32_t>(i), now);
  return absl::OkStatus();
}

void Session::Fail(absl::Status status) {
  std::lock_guard lock(mutex_);
  if (!IsOver(submit_state_)) submit_state_ = FailedSession{std::move(status)};
}

std::optional<Session::Subscription> Session::HangUp(absl::Status status) {
  std::lock_guard lock(mutex_);
  if (std::holds_alternative<UnbegunClient>(client_state_) ||
      std::holds_alternative<StreamingClient>(client_state_)) {
    client_state_ = LeftClient{std::move(status)};
  }
  // If a Submit is being handed over, EndSubmit tells its caller that the client left.
  std::optional<Subscription> subscription;
  if (const auto* subscribed = std::get_if<Subscribed>(&submit_state_)) {
    subscription = {subscribed->stream, attempt_};
  }
  if (!IsOver(submit_state_)) submit_state_ = LeftSession{};
  return subscription;
}

// ---- Frames ----

std::string Session::CheckFrame(const Frame& frame) const {
  if (!IsAccepted(acceptance_)) return "a frame came before Accepted";
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
  if (first_token_after_us_ < 0) first_token_after_us_ = now - begun_us_;
  TimeUs& last = sequences_[frame.sequence].last_token_us;
  effects->gap_us = now - (last == 0 ? created_us_ : last);
  if (last == 0 && !effects->first_token) effects->gap_us = -1;
  last = now;
}

void Session::AppendPromptLogprobs(PromptLogprobs& logprobs) {
  for (size_t i = 0; i < logprobs.logprobs.size(); ++i) {
    const auto next = static_cast<int32_t>(record_.prompt_logprobs.size()) + 1;
    if (logprobs.start + static_cast<int32_t>(i) != next) continue;  // A replay computed it again.
    record_.prompt_logprobs.push_back(std::move(logprobs.logprobs[i]));
  }
}

Session::FrameEffects Session::OnFrame(Frame& frame, TimeUs now) {
  FrameEffects effects;
  std::lock_guard lock(mutex_);
  if (frame.attempt != attempt_) return effects;
  const auto index = static_cast<size_t>(frame.sequence);
  if (frame.timings && index < sequences_.size() && sequences_[index].end) {
    TakeLateEnd(*sequences_[index].end, frame, &effects, now);
    return effects;
  }
  if (IsOver(submit_state_)) return effects;
  // The scheduler does not know yet that the router has ended the sequence.
  if (index < sequences_.size() && sequences_[index].end) return effects;
  effects.broken = CheckFrame(frame);
  if (!effects.broken.empty()) return effects;
  Sequence& sequence = sequences_[index];

  if (frame.prompt_logprobs) AppendPromptLogprobs(*frame.prompt_logprobs);
  NoteFingerprint(frame);
  AppendIds(frame, &effects, now);
  if (!frame.error.ok()) {
    submit_state_ = FailedSession{frame.error, /*of_sequence=*/true};
    failed_timings_ = std::move(frame.timings);
  } else if (frame.finish) {
    EndSequence(frame.sequence, frame.finish->reason, frame.finish->usage,
                frame.timings.value_or(RequestTimings{}), now);
    sequence.end->by_scheduler = true;
    sequence.end->event.timings_known = frame.timings.has_value();
  }
  Render(frame.sequence, now);
  if (frame.finish) NoteEnd(&effects);
  effects.over = IsOver(submit_state_) && !EndOwed();
  return effects;
}

void Session::NoteFingerprint(const Frame& frame) {
  if (frame.fingerprint.empty()) return;
  SequenceRecord& record = record_.sequences[frame.sequence];
  auto& spans = record.fingerprints;
  if (!spans.empty() && spans.back().fingerprint == frame.fingerprint) return;
  const auto position = static_cast<int32_t>(record.ids.size());
  if (!spans.empty() && spans.back().position == position) spans.pop_back();  // It has no token.
  spans.push_back({position, frame.fingerprint, frame.kind});
}

int32_t Session::CachedTokens() const {
  return std::get<AcceptedRecord>(acceptance_).cached_tokens;
}

// ---- Text ----

// Whether the token ends the sequence and its text is not wanted.
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

void Session::NotePending(int32_t index, bool has) {
  Sequence& sequence = sequences_[index];
  for (ToolCallDelta& call : sequence.pending.calls) {
    sequence.calls_tools = true;
    if (!call.name.empty() && call.id.empty()) call.id = ToolCallId(key_, index, call.index);
  }
  if (has || !text_.want_text) sequence.pending = {};
}

// Renders new ids until the limit of what may wait for the client. The text that a resuming client
// already has is rendered too, because the text of an id depends on the ids before it, and is
// dropped.
void Session::Render(int32_t index, TimeUs now) {
  Sequence& sequence = sequences_[index];
  const std::vector<TokenId>& ids = record_.sequences[index].ids;
  const int32_t has = ClientHas(index);
  const size_t bytes_max = std::max<size_t>(1, options_.render_ahead_bytes / sequences_.size());
  while (sequence.rendered < static_cast<int32_t>(ids.size()) &&
         sequence.rendered - sequence.sent < options_.ids_per_event &&
         PendingBytes(sequence.pending) < bytes_max) {
    const TokenId id = ids[sequence.rendered++];
    if (sequence.text && !IsSilentEnd(id)) sequence.text->Append({&id, 1}, &sequence.pending);
    NotePending(index, sequence.rendered <= has);
    if (sequence.rendered <= has) sequence.sent = sequence.rendered;
    if (sequence.text && sequence.text->stop()) {
      // `rendered` is the length of the sequence: this id completed the stop string.
      CutAtStop(index, {sequence.text->stop()->index, sequence.rendered}, now);
      break;
    }
  }
  if (!sequence.end || sequence.rendered < static_cast<int32_t>(ids.size())) return;
  if (sequence.text) {
    const bool stopped = sequence.text->stop().has_value();
    sequence.text->Finish(&sequence.pending);
    if (!stopped && sequence.text->stop()) {
      CutAtStop(index, {sequence.text->stop()->index, sequence.rendered}, now);
    }
    sequence.text.reset();
    NotePending(index, has > sequence.rendered);
  }
  if (has > sequence.rendered) sequence.end->sent = true;
}

// ---- State ----

bool Session::over() const {
  std::lock_guard lock(mutex_);
  return IsOver(submit_state_);
}

bool Session::resumable() const {
  std::lock_guard lock(mutex_);
  if (!HasRecord(acceptance_)) return false;
  const auto* failed = std::get_if<FailedSession>(&submit_state_);
  if (failed == nullptr) return true;
  return !failed->of_sequence && IsAccepted(acceptance_);
}

bool Session::has_record() const {
  std::lock_guard lock(mutex_);
  return HasRecord(acceptance_);
}

bool Session::accepted() const {
  std::lock_guard lock(mutex_);
  return IsAccepted(acceptance_);
}

AttemptId Session::attempt() const {
  std::lock_guard lock(mutex_);
  return attempt_;
}

std::vector<TokenId> Session::PromptIds() const {
  std::lock_guard lock(mutex_);
  return record_.prompt_ids;
}

size_t Session::bytes() const {
  std::lock_guard lock(mutex_);
  size_t bytes = sizeof(Session) + record_.prompt_ids.size() * sizeof(TokenId);
  if (record_.grammar) bytes += record_.grammar->bytes.size();
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

Session::Snapshot Session::snapshot() const {
  std::lock_guard lock(mutex_);
  Snapshot snapshot;
  snapshot.admitted.record = record_;
  snapshot.admitted.text = text_;
  snapshot.admitted.idempotency_key = idempotency_key_;
  snapshot.admitted.seed_given = seed_given_;
  snapshot.admitted.max_tokens_given = max_tokens_given_;
  snapshot.acceptance = acceptance_;
  for (const Sequence& sequence : sequences_) {
    snapshot.finishes.push_back(sequence.end ? std::optional(sequence.end->event) : std::nullopt);
  }
  snapshot.begun_us = begun_us_;
  snapshot.first_token_us = first_token_after_us_;
  return snapshot;
}

bool Session::Adopt(Snapshot snapshot) {
  std::lock_guard lock(mutex_);
  FATHOM_CHECK(attempt_.value == 0 && snapshot.finishes.size() == sequences_.size());
  begun_us_ = snapshot.begun_us;
  first_token_after_us_ = snapshot.first_token_us;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    if (snapshot.finishes[i]) sequences_[i].end = SequenceEnd{*std::move(snapshot.finishes[i])};
  }
  if (AllFinished()) {
    acceptance_ = std::get<AcceptedRecord>(std::move(snapshot.acceptance));
    submit_state_ = FinishedSession{};
    repeats_ = true;
    return true;
  }
  if (!std::holds_alternative<NewRecord>(snapshot.acceptance)) acceptance_ = RecordAcceptedBefore{};
  return false;
}

bool Session::SameRequest(const AdmittedRequest& other) const {
  std::lock_guard lock(mutex_);
  if (!HasRecord(acceptance_)) return false;
  Request request = other.record.request;
  if (!other.max_tokens_given) request.stop.max_tokens = record_.request.stop.max_tokens;
  return record_.request == request && record_.grammar == other.record.grammar &&
         record_.prompt_ids == other.record.prompt_ids &&
         text_.stop_strings == other.text.stop_strings &&
         text_.include_stop == other.text.include_stop &&
         (!other.seed_given || record_.seed == other.record.seed);
}

}  // namespace fathom::router
