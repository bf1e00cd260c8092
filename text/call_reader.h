// text/call_reader.h: the part of an answer machine (text/answer_machine.h) that finds the tool
// calls of an answer: it takes the text and the markers that come after the reasoning, and gives
// content and calls. Owner: one answer machine.
//
// An attempt is what may become a call: from its first marker (or, of a bare form, its first brace)
// until it is known to be one. What an attempt holds back is content as soon as it is no call.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/answer_machine.h"
#include "text/json_scanner.h"
#include "text/tool_call_form.h"

namespace fathom {

// Appends to the last event if that is of the same kind and call.
void AddAnswerEvent(AnswerEvent::Kind kind, int32_t call, std::string_view text,
                    std::vector<AnswerEvent>* events);

class CallReader {
 public:
  enum class Mark : uint8_t { kCallsBegin, kCallsEnd, kCallBegin, kCallEnd, kSeparator };
  static constexpr int kMarks = 5;
  using Events = std::vector<AnswerEvent>;

  // REQUIRES: `options` has a form of calls and outlives the reader.
  explicit CallReader(const AnswerMachineOptions* options);

  const Marker& MarkerOf(Mark mark) const;
  // Whether a marker that is no token means something at this place, so that it is looked for in
  // the text.
  bool Looks(Mark mark) const;

  // REQUIRES: whole characters, apart from a marker that was looked for.
  void Text(std::string_view text, Events* events);
  // `shown`: the marker as content shows it if it marks nothing; empty: not at all.
  void OnMark(Mark mark, std::string_view shown, Events* events);
  void Finish(Events* events);

 private:
  enum class State : uint8_t {
    kContent,
    kSection,    // After calls_begin, or between two calls in it.
    kHeader,     // After call_begin: up to the separator.
    kFence,      // Of kFencedJson, after the separator: NAME \n```json\n
    kArguments,  // Arguments, up to the end of the call. The call may have begun.
    kObject,     // An object with name and arguments. The call may have begun.
    kBare,       // Objects up to the end of the answer.
  };
  // A call that is known but was not given yet.
  struct Found {
    std::string name, arguments;
  };

  // Each takes one character.
  void Take(std::string_view character, Events* events);
  void TakeHeader(std::string_view character, Events* events);
  void TakeFence(std::string_view character, Events* events);
  void TakeArguments(std::string_view character, Events* events);
  void TakeOfObject(std::string_view character, Events* events);
  void TakeBare(std::string_view character, Events* events);
  // More of the arguments of kArguments; the call begins with the first one.
  void GiveArgument(std::string_view text, Events* events);
  void GiveArguments(std::string_view text, Events* events);

  void Content(std::string_view text, Events* events);
  void Start(State state, std::string_view shown);
  // The attempt is no call.
  void Fail(Events* events);
  // Ends what is open: a call that has begun, or an attempt, which fails.
  void Close(Events* events);
  // The end of a call was read. False: it is no call; then it is content.
  bool EndCall(std::string_view shown, Events* events);
  void EndSection(std::string_view shown, Events* events);
  void BeginCall(std::string_view name, Events* events);
  void FinishCall(bool whole, Events* events);
  bool Muted() const { return calls_ >= options_.calls_max; }

  bool Knows(std::string_view name) const;
  // The object so far may be a call: its keys are known, and so is its name if it is whole.
  bool Plausible() const;
  // The object is a call. REQUIRES: the scanner says that it is whole.
  bool TakeObject(Found* found) const;

  const AnswerMachineOptions& options_;
  const ToolCallForm& form_;
  const bool strict_;      // A marker is no token: calls are given when they are whole.
  size_t header_max_ = 0;  // The longest header that may be one.

  State state_ = State::kContent;
  bool in_section_ = false;
  bool section_called_ = false;  // The section had a call.
  bool holds_space_ = false;     // White space is held back in space_.
  bool touched_ = false;         // There was content or a call, so that no bare call begins.
  std::string space_;
  std::string attempt_;  // What the attempt is if it fails.
  std::string header_;
  std::string name_;       // Of the call that is read.
  std::string arguments_;  // Held back; of kObject the whole object.
  std::string fence_;      // What may be the end of the fence.
  JsonScanner json_;
  size_t given_ = 0;    // Of kObject: the bytes of arguments_ that were given.
  bool begun_ = false;  // The call was begun.
  std::vector<Found> found_;
  int32_t calls_ = 0;
};

}  // namespace fathom
