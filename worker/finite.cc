#include "worker/finite.h"

#include <algorithm>
#include <cstring>

namespace fathom::worker {
namespace {

// An element is not finite when its exponent is all ones. In a word of several elements, `exponent`
// selects the exponents; adding `carry`, one unit of each, moves exactly those of all ones into the
// `sign` bits.
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

uint64_t NonFiniteBits(uint64_t word, const Lanes& lanes) {
  return ((word & lanes.exponent) + lanes.carry) & lanes.sign;
}

}  // namespace

std::optional<int64_t> FindNonFinite(StoredType type, const std::byte* data, int64_t count) {
  constexpr int64_t kBlockBytes = 512;
  const Lanes lanes = LanesOf(type);
  const int64_t bytes = count * BytesOf(type);
  for (int64_t begin = 0; begin < bytes; begin += kBlockBytes) {
    uint64_t block[kBlockBytes / 8] = {};  // The tail is zero: finite.
    std::memcpy(block, data + begin, static_cast<size_t>(std::min(kBlockBytes, bytes - begin)));
    uint64_t any = 0;
    for (const uint64_t word : block) any |= NonFiniteBits(word, lanes);
    if (any == 0) continue;
    for (int64_t at = begin; at < bytes; at += BytesOf(type)) {
      uint64_t element = 0;
      std::memcpy(&element, data + at, static_cast<size_t>(BytesOf(type)));
      if (NonFiniteBits(element, lanes) != 0) return at / BytesOf(type);
    }
  }
  return std::nullopt;
}

}  // namespace fathom::worker
