// common/byte_span.h: a range of bytes of a text.
#pragma once

#include <cstddef>

namespace fathom {

// Bytes [begin, end) of a text.
struct ByteSpan {
  size_t begin = 0;
  size_t end = 0;
  bool operator==(const ByteSpan&) const = default;
};

}  // namespace fathom
