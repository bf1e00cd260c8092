#include "text/byte_level.h"

#include <array>

#include "common/utf8.h"

namespace fathom {
namespace {

// A printable Latin-1 character stands for its own byte. The 68 other bytes, in order, have the
// characters from U+0100 on.
constexpr size_t kOthers = 68;
constexpr size_t kAlphabet = 0x100 + kOthers;

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<int16_t, kAlphabet> bytes;

  Alphabet() {
    bytes.fill(-1);
    uint32_t other = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      const uint32_t code_point = printable ? byte : other++;
      if (code_point < 0x80) {
        characters[byte] = {static_cast<char>(code_point)};
      } else {
        characters[byte] = {static_cast<char>(0xC0 | (code_point >> 6)),
                            static_cast<char>(0x80 | (code_point & 0x3F))};
      }
      bytes[code_point] = static_cast<int16_t>(byte);
    }
  }
};

const Alphabet& TheAlphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

}  // namespace

const std::string& ByteLevelCharacter(uint8_t byte) { return TheAlphabet().characters[byte]; }

std::optional<std::string> ByteLevelBytes(std::string_view token) {
  const Alphabet& alphabet = TheAlphabet();
  std::string out;
  while (!token.empty()) {
    const Utf8Step step = ScanUtf8(token);
    if (step.code_point >= kAlphabet || alphabet.bytes[step.code_point] < 0) return std::nullopt;
    out.push_back(static_cast<char>(alphabet.bytes[step.code_point]));
    token.remove_prefix(step.bytes);
  }
  return out;
}

}  // namespace fathom
