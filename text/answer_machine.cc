#include "text/answer_machine.h"

#include <string_view>
#include <utility>

#include "common/check.h"
#include "common/utf8.h"
#include "text/call_reader.h"
#include "text/detokenizer.h"

namespace fathom {
namespace {

using Mark = CallReader::Mark;

// The markers of an answer: of its thinking, then those of a CallReader::Mark.
constexpr int kThinkBegin = 0, kThinkEnd = 1, kFirstCallMark = 2;
constexpr int kAllMarks = kFirstCallMark + CallReader::kMarks;

}  // namespace

class AnswerMachine::Impl {
 public:
  Impl(const Tokenizer* tokenizer, AnswerMachineOptions options);

  void Append(TokenId id, std::vector<AnswerEvent>* events);
  void Finish(std::vector<AnswerEvent>* events);

 private:
  enum class State : uint8_t {
    kStart,  // Nothing but white space so far: reasoning may follow.
    kThinking,
    kAnswer,
  };

  const Marker* MarkerOf(int mark) const;
  bool Looks(int mark) const;
  void Text(std::string_view text, std::vector<AnswerEvent>* events);
  // Takes one character, and searches for markers that are no tokens.
  void Search(std::string_view character, std::vector<AnswerEvent>* events);
  void Plain(std::string_view text, std::vector<AnswerEvent>* events);
  void OnMark(int mark, std::string_view shown, std::vector<AnswerEvent>* events);
  void Answer(std::string_view text, std::vector<AnswerEvent>* events);

  const Tokenizer* const tokenizer_;
  const AnswerMachineOptions options_;
  Detokenizer detokenizer_;
  std::optional<CallReader> calls_;
  bool searches_ = false;  // A marker is no token.
  State state_ = State::kAnswer;
  std::string space_;    // Held back in kStart.
  std::string partial_;  // A proper prefix of a marker that is looked for.
  bool reasoned_ = false;
  bool finished_ = false;
};

AnswerMachine::Impl::Impl(const Tokenizer* tokenizer, AnswerMachineOptions options)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      detokenizer_(tokenizer, !options_.keep_special, /*continues=*/true) {
  if (options_.calls) calls_.emplace(&options_);
  if (options_.thinking) {
    const bool thinks = options_.prompt_opens_thinking || options_.thinking->from_start;
    state_ = thinks ? State::kThinking : State::kStart;
  }
  for (int mark = 0; mark < kAllMarks; ++mark) {
    const Marker* marker = MarkerOf(mark);
    searches_ = searches_ || (marker != nullptr && !marker->text.empty() && !marker->id);
  }
}

// nullptr: there is none.
const Marker* AnswerMachine::Impl::MarkerOf(int mark) const {
  if (mark >= kFirstCallMark) {
    return calls_ ? &calls_->MarkerOf(static_cast<Mark>(mark - kFirstCallMark)) : nullptr;
  }
  if (!options_.thinking) return nullptr;
  return mark == kThinkBegin ? &options_.thinking->begin : &options_.thinking->end;
}

// Whether the marker is looked for in the text now.
bool AnswerMachine::Impl::Looks(int mark) const {
  if (mark >= kFirstCallMark) {
    return state_ != State::kThinking && calls_ &&
           calls_->Looks(static_cast<Mark>(mark - kFirstCallMark));
  }
  const Marker* marker = MarkerOf(mark);
  if (marker == nullptr || marker->id || marker->text.empty()) return false;
  if (mark == kThinkEnd) return state_ == State::kThinking;
  const bool first = options_.thinking->from_start && state_ == State::kThinking && !reasoned_;
  return state_ == State::kStart || first;
}

void AnswerMachine::Impl::Append(TokenId id, std::vector<AnswerEvent>* events) {
  FATHOM_CHECK(!finished_);
  std::string text;
  for (int mark = 0; mark < kAllMarks; ++mark) {
    const Marker* marker = MarkerOf(mark);
    if (marker == nullptr || marker->id != id) continue;
    // A character never continues after a marker.
    detokenizer_.Flush(&text);
    Text(text, events);
    Plain(std::exchange(partial_, {}), events);
    std::string shown;
    detokenizer_.Append(id, &shown);
    return OnMark(mark, shown, events);
  }
  detokenizer_.Append(id, &text);
  Text(text, events);
}

void AnswerMachine::Impl::Finish(std::vector<AnswerEvent>* events) {
  FATHOM_CHECK(!std::exchange(finished_, true));
  std::string text;
  detokenizer_.Flush(&text);
  Text(text, events);
  Plain(std::exchange(partial_, {}), events);
  if (state_ == State::kStart) Answer(std::exchange(space_, {}), events);
  if (calls_) calls_->Finish(events);
}

void AnswerMachine::Impl::Text(std::string_view text, std::vector<AnswerEvent>* events) {
  if (text.empty()) return;
  if (!searches_) return Plain(text, events);
  while (!text.empty()) {
    const size_t bytes = NextCharacter(text, 0);
    Search(text.substr(0, bytes), events);
    text.remove_prefix(bytes);
  }
}

void AnswerMachine::Impl::Search(std::string_view character, std::vector<AnswerEvent>* events) {
  partial_ += character;
  while (!partial_.empty()) {
    bool prefix = false;
    for (int mark = 0; mark < kAllMarks; ++mark) {
      if (!Looks(mark)) continue;
      const std::string& text = MarkerOf(mark)->text;
      if (partial_ == text) return OnMark(mark, std::exchange(partial_, {}), events);
      prefix = prefix || text.starts_with(partial_);
    }
    if (prefix) return;
    const std::string first = partial_.substr(0, NextCharacter(partial_, 0));
    partial_.erase(0, first.size());
    Plain(first, events);
  }
}

void AnswerMachine::Impl::Plain(std::string_view text, std::vector<AnswerEvent>* events) {
  if (text.empty()) return;
  if (state_ == State::kThinking) {
    reasoned_ = reasoned_ || !TrimLeft(text).empty();
    return AddAnswerEvent(AnswerEvent::Kind::kReasoning, -1, text, events);
  }
  if (state_ == State::kStart) {
    const size_t space = text.size() - TrimLeft(text).size();
    if (!options_.may_hold) {
      Answer(text.substr(0, space), events);
    } else {
      space_.append(text.substr(0, space));
    }
    text.remove_prefix(space);
    if (text.empty()) return;
    state_ = State::kAnswer;
    Answer(std::exchange(space_, {}), events);
  }
  Answer(text, events);
}

void AnswerMachine::Impl::Answer(std::string_view text, std::vector<AnswerEvent>* events) {
  if (calls_) return calls_->Text(text, events);
  AddAnswerEvent(AnswerEvent::Kind::kContent, -1, text, events);
}

void AnswerMachine::Impl::OnMark(int mark, std::string_view shown,
                                 std::vector<AnswerEvent>* events) {
  if (state_ == State::kThinking) {
    if (mark == kThinkEnd) {
      state_ = State::kAnswer;
    } else if (mark != kThinkBegin || reasoned_ || !options_.thinking->from_start) {
      Plain(shown, events);
    }
    return;
  }
  if (state_ == State::kStart) {
    if (mark == kThinkBegin) {
      space_.clear();
      state_ = State::kThinking;
      return;
    }
    state_ = State::kAnswer;
    Answer(std::exchange(space_, {}), events);
  }
  if (mark < kFirstCallMark) return Answer(shown, events);
  calls_->OnMark(static_cast<Mark>(mark - kFirstCallMark), shown, events);
}

AnswerMachine::AnswerMachine(const Tokenizer* tokenizer, AnswerMachineOptions options)
    : impl_(std::make_unique<Impl>(tokenizer, std::move(options))) {}
AnswerMachine::~AnswerMachine() = default;

void AnswerMachine::Append(TokenId id, std::vector<AnswerEvent>* events) {
  impl_->Append(id, events);
}
void AnswerMachine::Finish(std::vector<AnswerEvent>* events) { impl_->Finish(events); }

}  // namespace fathom
