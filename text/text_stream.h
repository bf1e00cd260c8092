// text/text_stream.h: converts the generated ids of one sequence to what its client reads: text,
// reasoning, tool calls, and the stop string that ends it. It combines an AnswerMachine and
// StopStrings. Owner: one sequence. The result depends on the ids only: a stream that is started
// again from id 0 gives the same text, and the concatenation does not depend on how ids were
// divided into calls. An incomplete character, text that may become a stop string, and text that
// may become a tool call are held back. Stop strings are searched in the content, neither in the
// reasoning nor in tool calls; one in text that was held back ends the sequence at the token that
// showed that the text is content. White space at the start is held back until it is known whether
// reasoning follows, and is then dropped; it is not held back if a stop string consists of white
// space.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/types.h"
#include "text/answer_machine.h"
#include "text/stop_strings.h"
#include "text/tokenizer.h"
#include "text/tool_call_form.h"

namespace fathom {

struct TextStreamOptions {
  bool keep_special = false;
  std::vector<std::string> stop_strings;  // None is empty; all are UTF-8.
  bool include_stop = false;
  int32_t min_tokens = 0;  // A stop string that is completed by an earlier token does not count.
  std::optional<ThinkingForm> thinking;  // nullopt: all ids are the answer.
  bool prompt_opens_thinking = false;
  std::optional<ToolCallForm> calls;  // nullopt: no tool calls are looked for.
  std::vector<std::string> tool_names;
  int32_t calls_max = INT32_MAX;  // As in AnswerMachineOptions.
};

struct StopMatch {
  int32_t index = 0;   // The index in stop_strings.
  int32_t length = 0;  // The tokens up to and including the one that completes it.
  bool operator==(const StopMatch&) const = default;
};

// More of a tool call of the answer.
struct ToolCallDelta {
  int32_t index = 0;       // Of the call in its sequence, from 0.
  std::string id;          // With `name`. A TextStream leaves it empty; the session makes it.
  std::string name;        // Not empty: the call begins.
  std::string arguments;   // The next piece of its arguments, which are JSON text.
  bool end = false;        // The call is over.
  bool whole = false;      // With `end`: the arguments are one whole JSON object.
  size_t text_before = 0;  // The bytes of `text` of the same delta that come before this.
  bool operator==(const ToolCallDelta&) const = default;
};

// The output of one call, or of several.
struct TextDelta {
  std::string text;
  std::string reasoning;
  std::vector<ToolCallDelta> calls;  // In order. A call is begun, continued and ended.
  bool empty() const { return text.empty() && reasoning.empty() && calls.empty(); }
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
  // Adds what events_ has to the delta, and searches the content for stop strings.
  void Give(TextDelta* delta);
  static void GiveCall(const AnswerEvent& event, TextDelta* delta);

  AnswerMachine machine_;
  std::vector<AnswerEvent> events_;
  StopStrings stops_;
  int32_t min_tokens_;
  int32_t length_ = 0;
  std::optional<StopMatch> stop_;
  bool finished_ = false;
};

}  // namespace fathom
