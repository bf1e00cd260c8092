// text/text_stream.h: converts the generated ids of one sequence to what its client reads: text,
// reasoning, and the stop string that ends it. It combines Detokenizer, ReasoningSplitter and
// StopStrings. Owner: one sequence. The result depends on the ids only: a stream that is started
// again from id 0 gives the same text, and the concatenation does not depend on how ids were
// divided into calls. An incomplete character, and text that may become a stop string, are held
// back. Stop strings are searched in the answer, not in the reasoning. White space at the start is
// held back until it is known whether reasoning follows, and is then dropped; it is not held back
// if a stop string consists of white space.
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

namespace fathom {

struct TextStreamOptions {
  bool keep_special = false;
  std::vector<std::string> stop_strings;  // None is empty; all are UTF-8.
  bool include_stop = false;
  int32_t min_tokens = 0;  // A stop string that is completed by an earlier token does not count.
  std::optional<ThinkingTokens> thinking;  // nullopt: all ids are the answer.
  bool prompt_opens_thinking = false;
};

struct StopMatch {
  int32_t index = 0;   // The index in stop_strings.
  int32_t length = 0;  // The tokens up to and including the one that completes it.
  bool operator==(const StopMatch&) const = default;
};

// The output of one call.
struct TextDelta {
  std::string text;
  std::string reasoning;
};

class TextStream {
 public:
  // REQUIRES: `tokenizer` outlives this.
  TextStream(const Tokenizer* tokenizer, TextStreamOptions options);

  // Takes the next ids, in order, and appends to *delta. After stop() is set, ids are ignored.
  void Append(std::span<const TokenId> ids, TextDelta* delta);
  // Ends the sequence: releases held text (which may complete a stop string that contains U+FFFD).
  // Does nothing after a stop. REQUIRES: no Append follows.
  void Finish(TextDelta* delta);

  // The stop string that ended the sequence.
  const std::optional<StopMatch>& stop() const { return stop_; }
  // The number of ids taken so far; at most stop()->length.
  int32_t length() const { return length_; }

 private:
  void AppendOne(TokenId id, TextDelta* delta);
  // Handles one id of a channel that is a text.
  void AppendTo(Channel channel, TokenId id, TextDelta* delta);
  void GiveHeld(TextDelta* delta);
  // An incomplete character becomes U+FFFD.
  void FlushCharacter(TextDelta* delta);
  // Adds to the text of channel_ and searches the answer for stop strings.
  void Give(std::string_view text, TextDelta* delta);

  Detokenizer detokenizer_;
  std::optional<ReasoningSplitter> splitter_;
  bool may_hold_ = true;
  std::vector<TokenId> held_;         // White space at the start.
  Channel channel_ = Channel::kText;  // The channel of the characters in the detokenizer.
  StopStrings stops_;
  int32_t min_tokens_;
  int32_t length_ = 0;
  std::optional<StopMatch> stop_;
  bool finished_ = false;
};

}  // namespace fathom
