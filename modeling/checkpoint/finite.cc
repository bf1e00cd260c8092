#include "modeling/checkpoint/finite.h"

#include <algorithm>
#include <cstring>

namespace fathom {
namespace {

// An element is not finite if all bits of its exponent are one. In a word of several elements,
// `exponent` selects the exponents. Adding `carry` (the lowest exponent bit of each element)
// carries into the `sign` bits of exactly those elements whose exponent is all ones.
struct Lanes {
  uint64_t exponent, carry, sign;
};

Lanes LanesOf(StoredType type) {
  switch (type) {
    case StoredType::kBf16:
      return {0x7F80'7F80'7F80'7F80, 0x0080'0080'0080'0080, 0x8000'8000'8000'8000};
    case StoredType::kF16:
      return {0x7C00'7C00'7C00'7C00, 0x0400'0400'0400'0400, 0x8000'8000'8000'8000};
    case StoredType::kF32:
      return {0x7F80'0000'7F80'0000, 0x0080'0000'0080'0000, 0x8000'0000'8000'0000};
  }
  return {};
}

// The sign bits of the result mark the elements that are not finite; other bits have no meaning.
uint64_t Marks(uint64_t word, const Lanes& lanes) { return (word & lanes.exponent) + lanes.carry; }

}  // namespace

std::optional<int64_t> FindNonFinite(StoredType type, const std::byte* data, int64_t count) {
  constexpr int64_t kBlockBytes = 1024;
  const Lanes lanes = LanesOf(type);
  const int64_t bytes = count * BytesOf(type);
  int64_t at = 0;
  for (; at + kBlockBytes <= bytes; at += kBlockBytes) {
    uint64_t marks = 0;
    for (int64_t i = 0; i < kBlockBytes; i += 8) {
      uint64_t word;
      std::memcpy(&word, data + at + i, sizeof(word));
      marks |= Marks(word, lanes);
    }
    if ((marks & lanes.sign) != 0) break;
  }
  // Finds the element in the block that has one, or checks the rest. The other bytes of the word
  // are zeros, which are finite.
  for (; at < bytes; at += BytesOf(type)) {
    uint64_t element = 0;
    std::memcpy(&element, data + at, static_cast<size_t>(BytesOf(type)));
    if ((Marks(element, lanes) & lanes.sign) != 0) return at / BytesOf(type);
  }
  return std::nullopt;
}

}  // namespace fathom
