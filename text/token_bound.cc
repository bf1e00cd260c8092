#include "text/token_bound.h"

#include <algorithm>

#include "common/utf8.h"
#include "text/normalizer.h"

namespace fathom {
namespace {

// NFC turns at most this many bytes into one, e.g. U+212A (3 bytes) into K, or three jamos into a
// syllable.
constexpr double kNfcShrinkMax = 3;

bool IsAscii(char byte) { return static_cast<uint8_t>(byte) < 0x80; }

}  // namespace

void TokenBound::Add(std::string_view token) {
  const auto bytes = static_cast<uint32_t>(token.size());
  longest_any_ = std::max(longest_any_, bytes);
  for (const char byte : token) {
    uint32_t& longest = longest_[static_cast<uint8_t>(byte)];
    longest = std::max(longest, bytes);
  }
}

int64_t TokenBound::MinTokens(std::string_view text) const {
  if (vanishes_ || longest_any_ == 0) return 0;
  const bool composes = nfc_ && NfcMayChange(text);
  std::array<int64_t, 256> counts{};
  int64_t changing = 0;  // Bytes that NFC may change.
  for (size_t at = 0; at < text.size(); ++at) {
    const bool ascii = IsAscii(text[at]);
    if (strips_ && (!ascii || IsWhiteSpace(static_cast<char32_t>(text[at])))) continue;
    // NFC changes an ASCII character only together with a mark after it.
    const bool stays = !composes || (ascii && (at + 1 == text.size() || IsAscii(text[at + 1])));
    ++(stays ? counts[static_cast<uint8_t>(text[at])] : changing);
  }
  double tokens = static_cast<double>(changing) / kNfcShrinkMax / longest_any_;
  for (size_t byte = 0; byte < counts.size(); ++byte) {
    // A byte that is in no token cannot occur in a text that Encode accepts, so it is not counted.
    if (longest_[byte] > 0) tokens += static_cast<double>(counts[byte]) / longest_[byte];
  }
  return static_cast<int64_t>(tokens * (1 - 1e-9));
}

}  // namespace fathom
