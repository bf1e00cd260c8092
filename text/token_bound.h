// text/token_bound.h: a lower bound for the number of tokens of a text, computed without tokenizing
// it. A token of n bytes covers n bytes of the text, so each byte counts for at least 1/n of a
// token, where n is the length of the longest token that contains the byte. Thread: constant after
// the last Add.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace fathom {

class TokenBound {
 public:
  // Adds a token that a text may become, given by the bytes of text that it covers.
  void Add(std::string_view token);
  // Some token also removes white space next to it, so white space counts for nothing.
  void SetTokensStrip() { strips_ = true; }
  // Text is composed (NFC) first, so bytes that may change count for a third.
  void SetNfc() { nfc_ = true; }
  // Parts of a text may be removed, so the bound is 0.
  void SetTextVanishes() { vanishes_ = true; }

  // Never more than the number of tokens that Tokenizer::Encode gives. O(bytes).
  int64_t MinTokens(std::string_view text) const;

 private:
  std::array<uint32_t, 256> longest_{};  // The length of the longest token with this byte.
  uint32_t longest_any_ = 0;
  bool strips_ = false;
  bool nfc_ = false;
  bool vanishes_ = false;
};

}  // namespace fathom
