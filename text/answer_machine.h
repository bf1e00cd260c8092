// text/answer_machine.h: turns the generated ids of one answer into events: reasoning, content and
// tool calls. Owner: one sequence. Pure: no JSON of an API, no clock, no device.
//
// The result is a function of the ids alone: a machine that is started again from id 0 gives the
// same events, and their concatenation does not depend on how the ids were divided into calls.
//
// Markers ("<think>", "<tool_call>") are recognised by their token ids where the tokenizer has
// such tokens; text that spells such a marker is text. A marker without a token is recognised in
// the text. A marker that was used is in no event.
//
// A tool call is only made of the whole beginning of a form (text/tool_call_form.h) that names a
// tool of the request. Everything else is content, whole and in order, as if no form were known.
// Where the markers of a form are tokens, a call begins as soon as its arguments do, and the
// arguments are given as they come: exactly the model's bytes, up to the marker that ends the call.
// Where they are text, a call is held back until it is whole and its JSON is valid. White space
// before the first call (if nothing else is there), between calls and after the last one is in no
// event.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/types.h"
#include "text/tokenizer.h"
#include "text/tool_call_form.h"

namespace fathom {

struct AnswerEvent {
  enum class Kind : uint8_t {
    kReasoning,      // `text` is more of the reasoning. All reasoning comes before all else.
    kContent,        // `text` is more of the content.
    kCallBegin,      // `text` is the name of the called tool.
    kCallArguments,  // `text` is more of the call's arguments: a piece of JSON text.
    kCallEnd,        // The call is over; `text` is empty.
  };
  Kind kind = Kind::kContent;
  int32_t call = -1;  // Which call of the answer, from 0; -1: the event is of no call.
  std::string text;   // Whole UTF-8 characters.
  // Of kCallEnd: the arguments are one whole JSON object. False: the model wrote something else,
  // or the answer ended before the call did.
  bool whole = false;
  bool operator==(const AnswerEvent&) const = default;
};

struct AnswerMachineOptions {
  bool keep_special = false;  // Special tokens that are no markers in use are text.
  // nullopt: there is no reasoning, and all ids are content or calls.
  std::optional<ThinkingForm> thinking;
  bool prompt_opens_thinking = false;
  // nullopt: no calls are looked for.
  std::optional<ToolCallForm> calls;
  std::vector<std::string> tool_names;  // The tools of the request. A call to another is content.
  int32_t calls_max = INT32_MAX;        // Later calls are in no event (parallel_tool_calls: 1).
  // White space is held back where the text above says so; false: it is content at once.
  bool may_hold = true;
};

class AnswerMachine {
 public:
  // REQUIRES: `tokenizer` outlives the machine.
  AnswerMachine(const Tokenizer* tokenizer, AnswerMachineOptions options);
  ~AnswerMachine();

  // Takes the next id and appends its events, which may be none. Two neighbours of one kind (and
  // call) become one event.
  void Append(TokenId id, std::vector<AnswerEvent>* events);
  // The answer has ended: gives what is held back. A call that has begun ends. REQUIRES: called
  // once, and no Append follows.
  void Finish(std::vector<AnswerEvent>* events);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
