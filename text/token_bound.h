// text/token_bound.h: how many tokens a text has at least, told without tokenizing it.
// A token of n bytes covers n bytes of the text, so each byte counts for at least 1/n of a token,
// where n is the length of the longest token with that byte in it. Thread: constant after the last
// Add.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace fathom::router {

class TokenBound {
 public:
  // A token that a text may become, by the bytes of the text that it covers.
  void Add(std::string_view token);
  // Some token takes white space beside it along: white space then counts for nothing.
  void SetTokensStrip() { strips_ = true; }
  // Text is composed (NFC) first: what may change counts for a third of its bytes.
  void SetNfc() { nfc_ = true; }
  // Parts of a text may vanish: no bound.
  void SetTextVanishes() { vanishes_ = true; }

  // Never more than Tokenizer::Encode gives. O(bytes).
  int64_t MinTokens(std::string_view text) const;

 private:
  std::array<uint32_t, 256> longest_{};  // Bytes of the longest token with this byte in it.
  uint32_t longest_any_ = 0;
  bool strips_ = false;
  bool nfc_ = false;
  bool vanishes_ = false;
};

}  // namespace fathom::router
