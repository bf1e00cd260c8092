#include "text/text_stream.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/utf8.h"

namespace fathom {
namespace {

AnswerMachineOptions MachineOptions(const TextStreamOptions& options) {
  AnswerMachineOptions machine;
  machine.keep_special = options.keep_special;
  machine.thinking = options.thinking;
  machine.prompt_opens_thinking = options.prompt_opens_thinking;
  machine.calls = options.calls;
  machine.tool_names = options.tool_names;
  machine.calls_max = options.calls_max;
  machine.may_hold = std::ranges::none_of(options.stop_strings,
                                          [](const std::string& s) { return TrimLeft(s).empty(); });
  return machine;
}

}  // namespace

TextStream::TextStream(const Tokenizer* tokenizer, TextStreamOptions options)
    : machine_(tokenizer, MachineOptions(options)),
      stops_(std::move(options.stop_strings), options.include_stop),
      min_tokens_(options.min_tokens) {}

void TextStream::Append(std::span<const TokenId> ids, TextDelta* delta) {
  FATHOM_CHECK(!finished_);
  for (const TokenId id : ids) {
    if (stop_) return;
    ++length_;
    machine_.Append(id, &events_);
    Give(delta);
  }
}

void TextStream::Give(TextDelta* delta) {
  for (const AnswerEvent& event : events_) {
    if (stop_) break;
    switch (event.kind) {
      case AnswerEvent::Kind::kReasoning:
        delta->reasoning.append(event.text);
        break;
      case AnswerEvent::Kind::kContent: {
        const std::optional<int32_t> index =
            stops_.Append(event.text, length_ >= min_tokens_, &delta->text);
        if (index) stop_ = StopMatch{*index, length_};
        break;
      }
      default:
        stops_.Flush(&delta->text);  // No stop string goes on behind a call.
        GiveCall(event, delta);
    }
  }
  events_.clear();
}

void TextStream::GiveCall(const AnswerEvent& event, TextDelta* delta) {
  std::vector<ToolCallDelta>& calls = delta->calls;
  const bool more = !calls.empty() && calls.back().index == event.call && !calls.back().end &&
                    calls.back().text_before == delta->text.size();
  if (!more) calls.push_back({.index = event.call, .text_before = delta->text.size()});
  ToolCallDelta& call = calls.back();
  switch (event.kind) {
    case AnswerEvent::Kind::kCallBegin:
      call.name = event.text;
      break;
    case AnswerEvent::Kind::kCallArguments:
      call.arguments += event.text;
      break;
    default:
      call.end = true;
      call.whole = event.whole;
  }
}

void TextStream::Finish(TextDelta* delta) {
  if (finished_ || stop_) return;
  finished_ = true;
  machine_.Finish(&events_);
  Give(delta);
  if (!stop_) stops_.Flush(&delta->text);
}

}  // namespace fathom
