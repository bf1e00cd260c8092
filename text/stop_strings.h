// text/stop_strings.h: finds stop strings in a text that comes in pieces, and holds back
// what may still become one. Owner: one sequence. The match is the one that ends first; of several
// ending there, the first in the list. It is a function of the whole text, however that was cut
// into pieces. Held back is at most the longest stop string less one byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::router {

class StopStrings {
 public:
  // REQUIRES: no string is empty; all are UTF-8 (admission checks both, and the number and length).
  // include_stop: the matched string stays in the text.
  StopStrings(std::vector<std::string> strings, bool include_stop);

  // Appends to *released what can be part of no match any more. Returns the index of the string
  // that matched; *released then ends before it (or after it, with include_stop), and the text
  // behind it is dropped. While !armed (min_tokens is not reached), a match that ends in this piece
  // does not count. REQUIRES: `text` is whole UTF-8 characters; no match yet.
  std::optional<int32_t> Append(std::string_view text, bool armed, std::string* released);
  // No more text: releases what was held back.
  void Flush(std::string* released);

  const std::string& string(int32_t index) const { return strings_[index]; }

 private:
  size_t Advance(size_t index, char byte);

  std::vector<std::string> strings_;
  std::vector<std::vector<uint32_t>> fallback_;  // Per string: Knuth-Morris-Pratt's table.
  std::vector<size_t> matched_;  // Per string: bytes of it that the text so far ends with.
  bool include_stop_;
  std::string held_;  // Invariant after each call: size() == max of matched_.
};

}  // namespace fathom::router
