#include "text/text_stream.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/utf8.h"

namespace fathom {

TextStream::TextStream(const Tokenizer* tokenizer, TextStreamOptions options)
    : detokenizer_(tokenizer, !options.keep_special, /*continues=*/true),
      may_hold_(std::none_of(options.stop_strings.begin(), options.stop_strings.end(),
                             [](const std::string& s) { return TrimLeft(s).empty(); })),
      stops_(std::move(options.stop_strings), options.include_stop),
      min_tokens_(options.min_tokens) {
  if (options.thinking) {
    splitter_.emplace(tokenizer, *options.thinking, options.prompt_opens_thinking);
  }
}

void TextStream::Append(std::span<const TokenId> ids, TextDelta* delta) {
  FATHOM_CHECK(!finished_);
  for (TokenId id : ids) {
    if (stop_) return;
    AppendOne(id, delta);
  }
}

void TextStream::AppendOne(TokenId id, TextDelta* delta) {
  ++length_;
  const Channel channel = splitter_ ? splitter_->Next(id) : Channel::kText;
  if (channel == Channel::kHeld) {
    if (may_hold_) return held_.push_back(id);
    return AppendTo(Channel::kText, id, delta);
  }
  if (channel == Channel::kText) GiveHeld(delta);
  held_.clear();
  if (!stop_) AppendTo(channel, id, delta);
}

void TextStream::GiveHeld(TextDelta* delta) {
  for (const TokenId id : std::exchange(held_, {})) AppendTo(Channel::kText, id, delta);
}

void TextStream::AppendTo(Channel channel, TokenId id, TextDelta* delta) {
  if (channel != channel_) {  // A character never continues in the other text.
    FlushCharacter(delta);
    channel_ = channel;
  }
  if (stop_ || channel == Channel::kNone) return;
  std::string text;
  detokenizer_.Append(id, &text);
  Give(text, delta);
}

void TextStream::FlushCharacter(TextDelta* delta) {
  std::string text;
  detokenizer_.Flush(&text);
  Give(text, delta);
}

void TextStream::Give(std::string_view text, TextDelta* delta) {
  if (text.empty()) return;
  if (channel_ == Channel::kReasoning) {
    delta->reasoning.append(text);
    return;
  }
  const std::optional<int32_t> index = stops_.Append(text, length_ >= min_tokens_, &delta->text);
  if (index) stop_ = StopMatch{*index, length_};
}

void TextStream::Finish(TextDelta* delta) {
  if (finished_ || stop_) return;
  finished_ = true;
  GiveHeld(delta);
  FlushCharacter(delta);
  if (!stop_) stops_.Flush(&delta->text);
}

}  // namespace fathom
