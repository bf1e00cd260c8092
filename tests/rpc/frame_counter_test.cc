// FrameCounter against a generator of frames that counts what it makes. The bytes come in random
// pieces.
#include "rpc/frame_counter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <string>

namespace fathom::rpc {
namespace {

std::string Frame(int kind, int flags, uint32_t stream, size_t size) {
  std::string frame;
  for (const int shift : {16, 8, 0}) frame += static_cast<char>(size >> shift);
  frame += static_cast<char>(kind);
  frame += static_cast<char>(flags);
  for (const int shift : {24, 16, 8, 0}) frame += static_cast<char>(stream >> shift);
  return frame + std::string(size, '\x01');
}

struct Made {
  std::string bytes = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  int64_t streams = 0, controls = 0, unended = 0;
};

Made Make(std::mt19937_64& random) {
  const auto below = [&](uint64_t n) { return static_cast<int>(random() % n); };
  Made made;
  uint32_t last = 0;
  for (int i = below(60); i > 0; --i) {
    const int kind = below(10);
    const int flags = below(256);
    const bool fresh = below(2) == 0;
    const uint32_t stream = fresh || last == 0 ? last + 2 : last - static_cast<uint32_t>(below(2));
    const auto size = static_cast<size_t>(below(3) == 0 ? below(70'000) : below(40));
    made.bytes += Frame(kind, flags, stream | (below(8) == 0 ? 0x80000000U : 0), size);
    if (kind == 1 || kind == 9) {
      made.unended = (flags & 4) != 0 ? 0 : made.unended + static_cast<int64_t>(size);
    }
    made.controls += kind == 4 || kind == 6 ? 1 : 0;
    if (kind != 1 || stream <= last) continue;
    last = stream;
    made.streams += 1;
  }
  return made;
}

TEST(FrameCounter, CountsWhatWasMadeInPiecesOfAnySize) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const Made made = Make(random);
    FrameCounter counter;
    std::span<const std::byte> left = std::as_bytes(std::span(made.bytes));
    const size_t most = size_t{1} << (random() % 18);
    while (!left.empty()) {
      const size_t piece = std::min(left.size(), 1 + random() % most);
      counter.Feed(left.first(piece));
      left = left.subspan(piece);
    }
    ASSERT_EQ(counter.streams(), made.streams);
    ASSERT_EQ(counter.controls(), made.controls);
    ASSERT_EQ(counter.unended_header_bytes(), made.unended);
  }
}

}  // namespace
}  // namespace fathom::rpc
