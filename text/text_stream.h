// text/text_stream.h: from one sequence's generated ids to what its client reads: text,
// reasoning, and the stop string that ends it. Detokenizer, ReasoningSplitter and StopStrings in
// one. Owner: one sequence. A function of the ids: a stream started again from id 0 gives the same
// text, and the concatenation does not depend on how ids were cut into calls. Held back: an
// incomplete character and less than the longest stop string. Stop strings are looked for in the
// answer, not in the reasoning. White space before anything else is held back too, until it is
// known whether reasoning follows, in which case it is dropped; but not where a stop string is all
// white space.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/types.h"
#include "text/detokenizer.h"
#include "text/reasoning.h"
#include "text/stop_strings.h"
#include "text/tokenizer.h"

namespace fathom::router {

struct TextStreamOptions {
  bool keep_special = false;
  std::vector<std::string> stop_strings;  // None empty, all UTF-8.
  bool include_stop = false;
  int32_t min_tokens = 0;  // A stop string that is complete with fewer tokens does not count.
  std::optional<ThinkingTokens> thinking;  // nullopt: everything is text.
  bool prompt_opens_thinking = false;
};

struct StopMatch {
  int32_t index = 0;   // In stop_strings.
  int32_t length = 0;  // Tokens up to and with the one that completes it: the sequence's length.
  bool operator==(const StopMatch&) const = default;
};

// What a call adds.
struct TextDelta {
  std::string text;
  std::string reasoning;
};

class TextStream {
 public:
  // REQUIRES: `tokenizer` outlives this.
  TextStream(const Tokenizer* tokenizer, TextStreamOptions options);

  // The next ids, in order. Appends to *delta. Once stop() is set, ids are ignored.
  void Append(std::span<const TokenId> ids, TextDelta* delta);
  // The sequence has ended: releases what was held back (which may complete a stop string made of
  // U+FFFD). Nothing after a stop. No Append after it.
  void Finish(TextDelta* delta);

  // The stop string that ended the sequence.
  const std::optional<StopMatch>& stop() const { return stop_; }
  // Ids taken so far; at most stop()->length.
  int32_t length() const { return length_; }

 private:
  void AppendOne(TokenId id, TextDelta* delta);
  // One id of a channel that is a text.
  void AppendTo(Channel channel, TokenId id, TextDelta* delta);
  void GiveHeld(TextDelta* delta);
  // An incomplete character becomes U+FFFD.
  void FlushCharacter(TextDelta* delta);
  // Adds to the text of channel_, watching the answer for stop strings.
  void Give(std::string_view text, TextDelta* delta);

  Detokenizer detokenizer_;
  std::optional<ReasoningSplitter> splitter_;
  bool may_hold_ = true;
  std::vector<TokenId> held_;         // White space at the begin.
  Channel channel_ = Channel::kText;  // Of the characters that the detokenizer holds.
  StopStrings stops_;
  int32_t min_tokens_;
  int32_t length_ = 0;
  std::optional<StopMatch> stop_;
  bool finished_ = false;
};

}  // namespace fathom::router
