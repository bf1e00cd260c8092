#include "text/call_reader.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/utf8.h"

namespace fathom {
namespace {

constexpr std::string_view kFenceBegin = "\n```json\n";
constexpr std::string_view kFenceEnd = "\n```";
constexpr std::string_view kFunction = "function";

bool IsJsonSpace(std::string_view character) {
  return character == " " || character == "\t" || character == "\n" || character == "\r";
}

// A marker that the form has, but the tokenizer has not.
bool IsInText(const Marker& marker) { return !marker.text.empty() && !marker.id; }

std::string_view KeyOf(const JsonScanner::Member& member, std::string_view text) {
  return text.substr(member.key_begin, member.key_end - member.key_begin);
}
std::string_view ValueOf(const JsonScanner::Member& member, std::string_view text) {
  return text.substr(member.value_begin, member.value_end - member.value_begin);
}
bool IsArguments(std::string_view key) { return key == "arguments" || key == "parameters"; }

}  // namespace

void AddAnswerEvent(AnswerEvent::Kind kind, int32_t call, std::string_view text,
                    std::vector<AnswerEvent>* events) {
  if (text.empty()) return;
  if (!events->empty() && events->back().kind == kind && events->back().call == call) {
    events->back().text.append(text);
    return;
  }
  events->push_back({.kind = kind, .call = call, .text = std::string(text)});
}

CallReader::CallReader(const AnswerMachineOptions* options)
    : options_(*options),
      form_(*options->calls),
      strict_(IsInText(form_.calls_begin) || IsInText(form_.calls_end) ||
              IsInText(form_.call_begin) || IsInText(form_.call_end) || IsInText(form_.separator)),
      holds_space_(options->may_hold) {
  for (const std::string& name : options_.tool_names) {
    header_max_ = std::max(header_max_, name.size());
  }
  header_max_ = std::max(header_max_ + kFenceBegin.size(), kFunction.size());
}

const Marker& CallReader::MarkerOf(Mark mark) const {
  switch (mark) {
    case Mark::kCallsBegin:
      return form_.calls_begin;
    case Mark::kCallsEnd:
      return form_.calls_end;
    case Mark::kCallBegin:
      return form_.call_begin;
    case Mark::kCallEnd:
      return form_.call_end;
    case Mark::kSeparator:
      return form_.separator;
  }
  return form_.separator;
}

// In JSON that is not whole, a text that spells a marker is a part of the JSON.
bool CallReader::Looks(Mark mark) const {
  if (!IsInText(MarkerOf(mark))) return false;
  switch (state_) {
    case State::kContent:
      return mark == Mark::kCallsBegin || mark == Mark::kCallBegin ||
             (in_section_ && mark == Mark::kCallsEnd);
    case State::kSection:
      return mark == Mark::kCallBegin || mark == Mark::kCallsEnd;
    case State::kHeader:
      return mark == Mark::kSeparator || mark == Mark::kCallBegin || mark == Mark::kCallEnd;
    case State::kFence:
      return mark == Mark::kCallBegin || mark == Mark::kCallEnd;
    case State::kArguments:
    case State::kObject:
      return mark == Mark::kCallEnd && json_.status() == JsonScanner::Status::kWhole;
    case State::kBare:
      return false;
  }
  return false;
}

// ---- Text

void CallReader::Text(std::string_view text, Events* events) {
  while (!text.empty()) {
    const bool bare = form_.body == ToolCallForm::Body::kBareJson && !touched_;
    if (state_ == State::kContent && !bare) return Content(text, events);
    const size_t bytes = NextCharacter(text, 0);
    Take(text.substr(0, bytes), events);
    text.remove_prefix(bytes);
  }
}

void CallReader::Take(std::string_view character, Events* events) {
  switch (state_) {
    case State::kContent:
      if (character != "{") return Content(character, events);
      Start(State::kBare, "");
      return TakeBare(character, events);
    case State::kSection:
      attempt_ += character;
      if (!IsJsonSpace(character)) Fail(events);
      return;
    case State::kHeader:
      return TakeHeader(character, events);
    case State::kFence:
      return TakeFence(character, events);
    case State::kArguments:
      return TakeArguments(character, events);
    case State::kObject:
      return TakeOfObject(character, events);
    case State::kBare:
      return TakeBare(character, events);
  }
}

void CallReader::TakeHeader(std::string_view character, Events* events) {
  attempt_ += character;
  header_ += character;
  if (header_.size() > header_max_) Fail(events);
}

void CallReader::TakeFence(std::string_view character, Events* events) {
  TakeHeader(character, events);
  if (state_ != State::kFence || !header_.ends_with(kFenceBegin)) return;
  const std::string name = header_.substr(0, header_.size() - kFenceBegin.size());
  if (!Knows(name)) return Fail(events);
  name_ = name;
  state_ = State::kArguments;
}

// The end of the fence is no part of the arguments.
void CallReader::TakeArguments(std::string_view character, Events* events) {
  if (!begun_) attempt_ += character;
  if (form_.body != ToolCallForm::Body::kFencedJson) return GiveArgument(character, events);
  const bool fenced = fence_.size() >= kFenceEnd.size();
  if (fenced ? IsJsonSpace(character) : character == kFenceEnd.substr(fence_.size(), 1)) {
    fence_ += character;
    return;
  }
  if (!fence_.empty()) GiveArgument(std::exchange(fence_, {}), events);
  if (state_ != State::kArguments) return;
  if (character == kFenceEnd.substr(0, 1)) {
    fence_ += character;
  } else {
    GiveArgument(character, events);
  }
}

// Arguments begin with a brace, and with white space at most before it.
void CallReader::GiveArgument(std::string_view text, Events* events) {
  for (const char c : text) json_.Next(c);
  if (begun_) return GiveArguments(text, events);
  arguments_ += text;
  if (json_.status() == JsonScanner::Status::kBroken) return Fail(events);
  if (strict_ || TrimLeft(arguments_).empty()) return;
  BeginCall(name_, events);
  GiveArguments(std::exchange(arguments_, {}), events);
}

// An object with name and arguments. If the name comes first, the arguments are given as they come.
void CallReader::TakeOfObject(std::string_view character, Events* events) {
  arguments_ += character;
  if (!begun_) attempt_ += character;
  for (const char c : character) json_.Next(c);
  if (!begun_) {
    if (json_.status() == JsonScanner::Status::kBroken || !Plausible()) return Fail(events);
    const auto& members = json_.members();
    if (strict_ || members.size() != 2 || members[1].value_begin == 0) return;
    const std::string_view text = arguments_;
    if (KeyOf(members[0], text) != "name" || !IsArguments(KeyOf(members[1], text))) return;
    const std::string_view name = ValueOf(members[0], text);
    BeginCall(name.substr(1, name.size() - 2), events);
    given_ = members[1].value_begin;
  }
  // After a mistake in the JSON, all that follows up to the end of the call is given.
  const JsonScanner::Member& arguments = json_.members()[1];
  const size_t end = arguments.value_end > 0 ? arguments.value_end : arguments_.size();
  if (end <= given_) return;
  GiveArguments(std::string_view(arguments_).substr(given_, end - given_), events);
  given_ = end;
}

// Objects, one after the other, with white space and semicolons between them.
void CallReader::TakeBare(std::string_view character, Events* events) {
  attempt_ += character;
  if (json_.status() == JsonScanner::Status::kWhole && !IsJsonSpace(character)) {
    Found found;
    const bool call = TakeObject(&found);
    found_.push_back(std::move(found));
    json_ = JsonScanner();
    arguments_.clear();
    if (!call || character != ";") Fail(events);
    return;
  }
  if (arguments_.empty() && IsJsonSpace(character)) return;
  arguments_ += character;
  for (const char c : character) json_.Next(c);
  if (json_.status() == JsonScanner::Status::kBroken || !Plausible()) Fail(events);
}

void CallReader::GiveArguments(std::string_view text, Events* events) {
  if (!Muted()) AddAnswerEvent(AnswerEvent::Kind::kCallArguments, calls_, text, events);
}

// White space is held back before the first call, between calls and after the last one.
void CallReader::Content(std::string_view text, Events* events) {
  if (holds_space_) {
    const size_t space = text.size() - TrimLeft(text).size();
    space_.append(text.substr(0, space));
    text.remove_prefix(space);
    if (text.empty()) return;
    holds_space_ = false;
    AddAnswerEvent(AnswerEvent::Kind::kContent, -1, std::exchange(space_, {}), events);
  }
  touched_ = touched_ || !TrimLeft(text).empty();
  AddAnswerEvent(AnswerEvent::Kind::kContent, -1, text, events);
}

// ---- Markers

void CallReader::OnMark(Mark mark, std::string_view shown, Events* events) {
  switch (mark) {
    case Mark::kCallsBegin:
      Close(events);
      in_section_ = true;
      section_called_ = false;
      return Start(State::kSection, shown);
    case Mark::kCallBegin: {
      if (state_ != State::kSection) Close(events);
      const ToolCallForm::Body body = form_.body;
      return Start(body == ToolCallForm::Body::kJsonObject ? State::kObject
                   : body == ToolCallForm::Body::kBareJson ? State::kBare
                                                           : State::kHeader,
                   shown);
    }
    case Mark::kSeparator: {
      const bool fenced = form_.body == ToolCallForm::Body::kFencedJson;
      if (state_ != State::kHeader || !(fenced ? header_ == kFunction : Knows(header_))) break;
      attempt_ += shown;
      name_ = fenced ? "" : header_;
      header_.clear();
      state_ = fenced ? State::kFence : State::kArguments;
      return;
    }
    case Mark::kCallEnd:
      if (state_ == State::kContent || state_ == State::kSection || state_ == State::kBare) break;
      EndCall(shown, events);
      return;
    case Mark::kCallsEnd:
      if (state_ != State::kSection) Close(events);
      return EndSection(shown, events);
  }
  // The marker marks nothing.
  if (begun_) {
    return Text(shown, events);
  }
  if (state_ != State::kContent) {
    attempt_ += shown;
    return Fail(events);
  }
  Content(shown, events);
}

void CallReader::Start(State state, std::string_view shown) {
  if (state_ == State::kContent) attempt_.clear();
  state_ = state;
  attempt_ += shown;
  header_.clear();
  name_.clear();
  arguments_.clear();
  fence_.clear();
  found_.clear();
  json_ = JsonScanner();
  given_ = 0;
  begun_ = false;
}

void CallReader::Fail(Events* events) {
  FATHOM_CHECK(!begun_);
  state_ = State::kContent;
  found_.clear();
  Content(std::exchange(attempt_, {}), events);
}

void CallReader::Close(Events* events) {
  if (begun_) {
    EndCall("", events);
  } else if (state_ != State::kContent && !(state_ == State::kSection && section_called_)) {
    Fail(events);
  }
  attempt_.clear();
  state_ = State::kContent;
}

bool CallReader::EndCall(std::string_view shown, Events* events) {
  if (!begun_) {
    attempt_ += shown;
    Found found{name_, arguments_};
    bool call = json_.status() == JsonScanner::Status::kWhole;
    if (state_ == State::kObject) call = call && TakeObject(&found);
    if (state_ != State::kObject && state_ != State::kArguments) call = false;
    if (!call) {
      Fail(events);
      return false;
    }
    BeginCall(found.name, events);
    GiveArguments(found.arguments, events);
    FinishCall(/*whole=*/true, events);
    return true;
  }
  bool whole = json_.status() == JsonScanner::Status::kWhole;
  if (state_ == State::kObject) {
    // The arguments are whole as soon as their value is.
    whole = json_.members()[1].value_end > 0;
  } else if (fence_.size() < kFenceEnd.size()) {
    GiveArgument(std::exchange(fence_, {}), events);
    whole = json_.status() == JsonScanner::Status::kWhole;
  }
  FinishCall(whole, events);
  return true;
}

void CallReader::BeginCall(std::string_view name, Events* events) {
  begun_ = touched_ = true;
  attempt_.clear();
  if (holds_space_) space_.clear();
  if (Muted()) return;
  events->push_back(
      {.kind = AnswerEvent::Kind::kCallBegin, .call = calls_, .text = std::string(name)});
}

void CallReader::FinishCall(bool whole, Events* events) {
  if (!Muted()) {
    events->push_back({.kind = AnswerEvent::Kind::kCallEnd, .call = calls_, .whole = whole});
    ++calls_;
  }
  begun_ = false;
  section_called_ = in_section_;
  holds_space_ = options_.may_hold;
  state_ = in_section_ ? State::kSection : State::kContent;
  attempt_.clear();
}

void CallReader::EndSection(std::string_view shown, Events* events) {
  const bool called = section_called_ && in_section_;
  in_section_ = section_called_ = false;
  if (called) {
    state_ = State::kContent;
    attempt_.clear();
    return;
  }
  if (state_ == State::kContent) return Content(shown, events);
  attempt_ += shown;
  Fail(events);
}

void CallReader::Finish(Events* events) {
  if (state_ == State::kBare) {
    Found last;
    if (json_.status() == JsonScanner::Status::kWhole && TakeObject(&last)) {
      found_.push_back(std::move(last));
    } else if (!arguments_.empty() || found_.empty()) {
      Fail(events);
    }
    for (const Found& found : std::exchange(found_, {})) {
      BeginCall(found.name, events);
      GiveArguments(found.arguments, events);
      FinishCall(/*whole=*/true, events);
    }
  }
  Close(events);
  // White space alone is content, unless there was a call.
  if (calls_ == 0) AddAnswerEvent(AnswerEvent::Kind::kContent, -1, space_, events);
  space_.clear();
}

// ---- Objects

bool CallReader::Knows(std::string_view name) const {
  return std::ranges::find(options_.tool_names, name) != options_.tool_names.end();
}

bool CallReader::Plausible() const {
  const std::string_view text = arguments_;
  bool name = false, arguments = false;
  for (const JsonScanner::Member& member : json_.members()) {
    if (member.key_end == 0) continue;
    const std::string_view key = KeyOf(member, text);
    const bool begun = member.value_begin > 0;
    if (key == "name") {
      if (std::exchange(name, true) || (begun && member.value_first != '"')) return false;
      if (member.value_end == 0) continue;
      const std::string_view value = ValueOf(member, text);
      if (!Knows(value.substr(1, value.size() - 2))) return false;
    } else if (IsArguments(key)) {
      if (std::exchange(arguments, true) || (begun && member.value_first != '{')) return false;
    } else if (key != "type" && key != "id") {
      return false;
    }
  }
  return true;
}

bool CallReader::TakeObject(Found* found) const {
  const std::string_view text = arguments_;
  bool name = false, arguments = false;
  for (const JsonScanner::Member& member : json_.members()) {
    const std::string_view value = ValueOf(member, text);
    if (KeyOf(member, text) == "name") {
      name = true;
      found->name = value.substr(1, value.size() - 2);
    } else if (IsArguments(KeyOf(member, text))) {
      arguments = true;
      found->arguments = value;
    }
  }
  return name && arguments && Plausible();
}

}  // namespace fathom
