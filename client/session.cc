#include "client/session.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace fathom::client {
namespace {

// Appends the part of `text` (which starts at byte `*at` of the stream) that `held` does not have
// yet; returns that part.
std::string AppendNew(std::string text, size_t* at, std::string* held) {
  const size_t known = std::min(text.size(), held->size() - std::min(*at, held->size()));
  *at += text.size();
  text.erase(0, known);
  *held += text;
  return text;
}

}  // namespace

Session::Session(int32_t sequences) {
  FATHOM_CHECK(sequences >= 1);
  answer_.sequences.resize(sequences);
  cursors_.resize(sequences);
  held_.resize(sequences);
}

void Session::BeginStream(From from) {
  answer_.counts.attempts += 1;
  for (size_t i = 0; i < cursors_.size(); ++i) {
    cursors_[i] = {};
    if (from == From::kStart) continue;
    cursors_[i].position = static_cast<int32_t>(answer_.sequences[i].ids.size());
    cursors_[i].text_bytes = held_[i].text_bytes;
    cursors_[i].reasoning_bytes = held_[i].reasoning_bytes;
    cursors_[i].ended = answer_.sequences[i].finish.has_value();
  }
}

absl::StatusOr<std::optional<Event>> Session::Apply(Event event) {
  auto taken = std::visit(
      [this](auto& e) -> absl::StatusOr<std::optional<Event>> { return Take(std::move(e)); },
      event);
  if (taken.ok() && taken->has_value()) progress_ += 1;
  return taken;
}

std::optional<Event> Session::Take(Started started) {
  if (started_) return std::nullopt;
  started_ = true;
  answer_.started = started;
  return Event(std::move(started));
}

absl::StatusOr<std::optional<Event>> Session::Take(PromptLogprobs prompt) {
  auto& all = answer_.prompt_logprobs;
  if (!all) {
    all.emplace();
    all->start = 1;  // The first prompt token has no log-probability.
  }
  const int32_t next = all->start + static_cast<int32_t>(all->logprobs.size());
  if (prompt.start > next) return Gap(-1, prompt.start, next);
  const auto known = static_cast<size_t>(next - prompt.start);
  if (known >= prompt.logprobs.size()) return std::optional<Event>();
  prompt.logprobs.erase(prompt.logprobs.begin(), prompt.logprobs.begin() + known);
  prompt.start = next;
  all->logprobs.insert(all->logprobs.end(), prompt.logprobs.begin(), prompt.logprobs.end());
  return std::optional<Event>(std::move(prompt));
}

absl::StatusOr<std::optional<Event>> Session::Take(Tokens tokens) {
  if (tokens.sequence < 0 || tokens.sequence >= static_cast<int32_t>(cursors_.size())) {
    return DataLoss("tokens of sequence {}, but the request has {}", tokens.sequence,
                    cursors_.size());
  }
  Cursor& cursor = cursors_[tokens.sequence];
  SequenceResult& result = answer_.sequences[tokens.sequence];
  if (tokens.position > cursor.position) {
    return Gap(tokens.sequence, tokens.position, cursor.position);
  }
  if (tokens.position < cursor.position || cursor.ended) {
    answer_.counts.dropped_tokens += static_cast<int64_t>(tokens.ids.size());
    return std::optional<Event>();
  }
  if (!tokens.logprobs.empty() && tokens.logprobs.size() != tokens.ids.size()) {
    return DataLoss("{} log-probabilities for {} tokens", tokens.logprobs.size(),
                    tokens.ids.size());
  }
  const bool with_ids = !tokens.ids.empty();
  cursor.position += static_cast<int32_t>(tokens.ids.size());
  const auto known = std::min(tokens.ids.size(), result.ids.size() - tokens.position);
  answer_.counts.dropped_tokens += static_cast<int64_t>(known);
  tokens.ids.erase(tokens.ids.begin(), tokens.ids.begin() + known);
  if (!tokens.logprobs.empty()) {
    tokens.logprobs.erase(tokens.logprobs.begin(), tokens.logprobs.begin() + known);
  }
  tokens.position += static_cast<int32_t>(known);
  tokens.text = AppendNew(std::move(tokens.text), &cursor.text_bytes, &result.text);
  tokens.reasoning =
      AppendNew(std::move(tokens.reasoning), &cursor.reasoning_bytes, &result.reasoning);
  if (with_ids && cursor.position >= static_cast<int32_t>(result.ids.size())) {
    held_[tokens.sequence] = {cursor.text_bytes, cursor.reasoning_bytes};
  }
  result.ids.insert(result.ids.end(), tokens.ids.begin(), tokens.ids.end());
  result.logprobs.insert(result.logprobs.end(), tokens.logprobs.begin(), tokens.logprobs.end());
  if (tokens.ids.empty() && tokens.text.empty() && tokens.reasoning.empty()) {
    return std::optional<Event>();
  }
  return std::optional<Event>(std::move(tokens));
}

absl::StatusOr<std::optional<Event>> Session::Take(Finish finish) {
  if (finish.sequence < 0 || finish.sequence >= static_cast<int32_t>(cursors_.size())) {
    return DataLoss("end of sequence {}, but the request has {}", finish.sequence, cursors_.size());
  }
  Cursor& cursor = cursors_[finish.sequence];
  SequenceResult& result = answer_.sequences[finish.sequence];
  if (cursor.ended) return std::optional<Event>();
  if (finish.position != cursor.position ||
      finish.position != static_cast<int32_t>(result.ids.size())) {
    return Gap(finish.sequence, finish.position, cursor.position);
  }
  cursor.ended = true;
  if (result.finish) return std::optional<Event>();
  result.finish = finish;
  return std::optional<Event>(std::move(finish));
}

absl::Status Session::Gap(int32_t sequence, int32_t position, int32_t expected) {
  answer_.counts.gaps += 1;
  return DataLoss(
      "the stream of {} jumped to position {}, the next one is {}",
      sequence < 0 ? "the prompt's log-probabilities" : fmt::format("sequence {}", sequence),
      position, expected);
}

std::vector<int32_t> Session::next_positions() const {
  std::vector<int32_t> next;
  for (const SequenceResult& result : answer_.sequences) {
    next.push_back(static_cast<int32_t>(result.ids.size()) + (result.finish ? 1 : 0));
  }
  return next;
}

bool Session::finished() const {
  return std::all_of(answer_.sequences.begin(), answer_.sequences.end(),
                     [](const SequenceResult& result) { return result.finish.has_value(); });
}

const char* FinishKindName(FinishKind kind) {
  switch (kind) {
    case FinishKind::kStop:
      return "stop";
    case FinishKind::kLength:
      return "length";
    case FinishKind::kDeadline:
      return "deadline";
  }
  return "?";
}

}  // namespace fathom::client
