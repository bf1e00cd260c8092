// text/stop_strings.h: finds stop strings in a text that comes in pieces, and holds back text that
// may still become part of one. Owner: one sequence. The match that ends first counts; of several
// that end at the same byte, the first in the list. The result depends on the whole text only, not
// on how it was divided into pieces. The held text is always shorter than the longest stop string.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

class StopStrings {
 public:
  // REQUIRES: no string is empty; all are UTF-8 (admission checks both, and the number and length).
  // include_stop: the matched string stays in the text.
  StopStrings(std::vector<std::string> strings, bool include_stop);

  // Appends to *released the text that can no longer be part of a match. Returns the index of the
  // string that matched; then *released ends before the match (or after it, with include_stop), and
  // the text after it is dropped. If `armed` is false (min_tokens is not reached), a match that
  // ends in this piece does not count. REQUIRES: `text` consists of whole UTF-8 characters; there
  // was no match yet.
  std::optional<int32_t> Append(std::string_view text, bool armed, std::string* released);
  // Ends the text: releases the held text.
  void Flush(std::string* released);

  const std::string& string(int32_t index) const { return strings_[index]; }

 private:
  size_t Advance(size_t index, char byte);

  std::vector<std::string> strings_;
  std::vector<std::vector<uint32_t>> fallback_;  // The table of Knuth-Morris-Pratt for each string.
  std::vector<size_t> matched_;  // For each string: how many bytes of it the text ends with.
  bool include_stop_;
  std::string held_;  // Invariant after each call: size() == max of matched_.
};

}  // namespace fathom
