#include "text/text_stream.h"

#include <utility>

#include "common/check.h"

namespace fathom::router {

TextStream::TextStream(const Tokenizer* tokenizer, TextStreamOptions options)
    : detokenizer_(tokenizer, !options.keep_special),
      stops_(std::move(options.stop_strings), options.include_stop),
      min_tokens_(options.min_tokens) {
  if (options.thinking) {
    splitter_.emplace(*options.thinking, options.prompt_opens_thinking);
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
  if (channel != channel_) {  // A character does not go on in another text.
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
  FlushCharacter(delta);
  if (!stop_) stops_.Flush(&delta->text);
}

}  // namespace fathom::router
