#include "text/stop_strings.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace fathom {
namespace {

// fallback[n]: the length of the longest proper prefix of `string` with which its first n bytes
// end.
std::vector<uint32_t> FallbackTable(std::string_view string) {
  std::vector<uint32_t> fallback(string.size() + 1, 0);
  uint32_t length = 0;
  for (size_t i = 1; i < string.size(); ++i) {
    while (length > 0 && string[i] != string[length]) length = fallback[length];
    if (string[i] == string[length]) ++length;
    fallback[i + 1] = length;
  }
  return fallback;
}

}  // namespace

StopStrings::StopStrings(std::vector<std::string> strings, bool include_stop)
    : strings_(std::move(strings)), matched_(strings_.size(), 0), include_stop_(include_stop) {
  for (const std::string& string : strings_) {
    FATHOM_CHECK(!string.empty());
    fallback_.push_back(FallbackTable(string));
  }
}

// Returns how many bytes of strings_[index] the text ends with, including `byte`.
size_t StopStrings::Advance(size_t index, char byte) {
  const std::string& string = strings_[index];
  size_t& length = matched_[index];
  while (length > 0 && (length == string.size() || string[length] != byte)) {
    length = fallback_[index][length];
  }
  if (string[length] == byte) ++length;
  return length;
}

std::optional<int32_t> StopStrings::Append(std::string_view text, bool armed,
                                           std::string* released) {
  if (strings_.empty()) {
    released->append(text);
    return std::nullopt;
  }
  const size_t before = held_.size();
  held_.append(text);
  size_t keep = 0;
  for (size_t at = before; at < held_.size(); ++at) {
    keep = 0;
    for (size_t i = 0; i < strings_.size(); ++i) {
      const size_t length = Advance(i, held_[at]);
      if (length < strings_[i].size()) {
        keep = std::max(keep, length);
        continue;
      }
      if (armed) {
        released->append(held_, 0, include_stop_ ? at + 1 : at + 1 - length);
        held_.clear();
        return static_cast<int32_t>(i);
      }
      keep = std::max<size_t>(keep, fallback_[i][length]);
    }
  }
  if (!text.empty()) {
    released->append(held_, 0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
  }
  return std::nullopt;
}

void StopStrings::Flush(std::string* released) {
  released->append(held_);
  held_.clear();
  std::fill(matched_.begin(), matched_.end(), 0);
}

}  // namespace fathom
