#include "text/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "common/status.h"
#include "common/utf8.h"

namespace fathom {
namespace {

struct Part {
  ByteSpan span;
  bool match;
};

absl::Status TooHard(std::string_view word) {
  return Invalid(
      "the tokenizer's pattern gave up on a word of {} bytes, which begins '{}'; break long runs "
      "of "
      "one kind of character",
      word.size(), word.substr(0, NextCharacter(word, 0)));
}

absl::Status Stopped() { return Cancelled("nobody waits for these tokens any more"); }

// Finds all parts of `word` in order: the matches and the texts between them. An empty match is a
// part too, unless it touches the previous match.
absl::Status FindParts(const Regex& regex, std::string_view word, bool invert, CancelCheck* cancel,
                       std::vector<Part>* parts) {
  size_t from = 0, done = 0;
  bool any = false;
  while (from <= word.size()) {
    ByteSpan found;
    const Regex::Result result = regex.Find(word, from, &found);
    if (result == Regex::Result::kTooHard) return TooHard(word);
    if (result == Regex::Result::kNoMatch) break;
    if (cancel->After(static_cast<int64_t>(found.end - from) + 1)) return Stopped();
    if (found.begin == found.end && any && found.end == done) {
      from = from < word.size() ? NextCharacter(word, from) : from + 1;
      continue;
    }
    if (found.begin != done) parts->push_back({{done, found.begin}, invert});
    parts->push_back({found, !invert});
    from = done = found.end;
    any = true;
  }
  if (done != word.size()) parts->push_back({{done, word.size()}, invert});
  return absl::OkStatus();
}

// Joins the parts according to `behavior`.
void Merge(SplitBehavior behavior, std::vector<Part>* parts) {
  if (behavior == SplitBehavior::kMergedWithNext) std::reverse(parts->begin(), parts->end());
  size_t kept = 0;
  bool previous_match = false;
  for (const Part& part : *parts) {
    const bool join = behavior == SplitBehavior::kContiguous ? part.match == previous_match
                                                             : part.match && !previous_match;
    previous_match = part.match;
    if (join && kept > 0) {
      ByteSpan& last = (*parts)[kept - 1].span;
      last = {std::min(last.begin, part.span.begin), std::max(last.end, part.span.end)};
    } else {
      (*parts)[kept++] = part;
    }
  }
  parts->resize(kept);
  if (behavior == SplitBehavior::kMergedWithNext) std::reverse(parts->begin(), parts->end());
}

// The common case, without a list of parts: each match and each text between matches becomes a
// word.
absl::Status Isolate(const Regex& regex, std::string_view word, CancelCheck* cancel,
                     std::vector<std::string_view>* words) {
  size_t from = 0, done = 0;
  while (from < word.size()) {
    ByteSpan found;
    const Regex::Result result = regex.Find(word, from, &found);
    if (result == Regex::Result::kTooHard) return TooHard(word);
    if (result == Regex::Result::kNoMatch) break;
    if (cancel->After(static_cast<int64_t>(found.end - from) + 1)) return Stopped();
    if (found.begin != done) words->push_back(word.substr(done, found.begin - done));
    if (found.begin != found.end) {
      words->push_back(word.substr(found.begin, found.end - found.begin));
      from = found.end;
    } else {
      from = found.begin < word.size() ? NextCharacter(word, found.begin) : word.size();
    }
    done = found.end;
  }
  if (done != word.size()) words->push_back(word.substr(done));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PreTokenizer::Step> PreTokenizer::MakeStep(const SplitSpec& spec) {
  FATHOM_ASSIGN_OR_RETURN(Regex regex, spec.is_regex ? Regex::Compile(spec.pattern)
                                                     : Regex::CompileLiteral(spec.pattern));
  return Step{std::move(regex), spec.behavior, spec.invert};
}

absl::StatusOr<PreTokenizer> PreTokenizer::Make(const PreTokenizerSpec& spec) {
  PreTokenizer made;
  for (const SplitSpec& split : spec.splits) {
    FATHOM_ASSIGN_OR_RETURN(Step step, MakeStep(split));
    made.steps_.push_back(std::move(step));
  }
  made.add_prefix_space_ = spec.add_prefix_space;
  if (spec.byte_level_split) {
    FATHOM_ASSIGN_OR_RETURN(Step step, MakeStep(*spec.byte_level_split));
    made.last_.emplace(std::move(step));
  }
  return made;
}

absl::Status PreTokenizer::Apply(const Step& step, CancelCheck* cancel,
                                 std::vector<std::string_view>* words) {
  std::vector<std::string_view> out;
  out.reserve(words->size() * 2);
  std::vector<Part> parts;
  for (std::string_view word : *words) {
    if (step.behavior == SplitBehavior::kIsolated) {
      FATHOM_RETURN_IF_ERROR(Isolate(step.regex, word, cancel, &out));
      continue;
    }
    parts.clear();
    FATHOM_RETURN_IF_ERROR(FindParts(step.regex, word, step.invert, cancel, &parts));
    if (step.behavior != SplitBehavior::kRemoved) Merge(step.behavior, &parts);
    for (const Part& part : parts) {
      if (step.behavior == SplitBehavior::kRemoved && part.match) continue;
      if (part.span.begin == part.span.end) continue;
      out.push_back(word.substr(part.span.begin, part.span.end - part.span.begin));
    }
  }
  words->swap(out);
  return absl::OkStatus();
}

absl::Status PreTokenizer::Split(std::string_view text, CancelCheck* cancel, std::string* buffer,
                                 std::vector<std::string_view>* words) const {
  words->clear();
  if (text.empty()) return absl::OkStatus();
  words->push_back(text);
  for (const Step& step : steps_) FATHOM_RETURN_IF_ERROR(Apply(step, cancel, words));
  if (add_prefix_space_) {
    buffer->clear();
    buffer->reserve(text.size() + words->size());  // Each word grows by at most one byte.
    for (std::string_view& word : *words) {
      const size_t begin = buffer->size();
      if (word.front() != ' ') buffer->push_back(' ');
      buffer->append(word);
      word = std::string_view(*buffer).substr(begin);
    }
  }
  if (last_) FATHOM_RETURN_IF_ERROR(Apply(*last_, cancel, words));
  return absl::OkStatus();
}

}  // namespace fathom
