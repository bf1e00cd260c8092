// worker/cuda/weight_loader.h: copies weights from files to device memory. Several reader threads
// each take the next piece, read it into one of their two pinned buffers, and start the copy to the
// device on a stream of their own. While the copy runs, the reader reads the next piece into the
// other buffer. The buffers are small, because pinning memory takes longer than reading.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "modeling/checkpoint/weight_pieces.h"

namespace fathom::worker {

// The monotonic clock that times a load and its parts.
int64_t LoadTimeUs();

// Means over the readers.
struct CopyTimes {
  int64_t pin_us = 0;
  int64_t read_us = 0;
  int64_t convert_us = 0;
  int64_t wait_us = 0;
};

// Copies every piece to its place in `arena` of the current device with `readers` threads, and
// returns after all copies. The first error of a reader stops all readers. REQUIRES: readers > 0.
absl::Status CopyPieces(const WeightPieces& pieces, std::byte* arena, int readers,
                        CopyTimes* times);

}  // namespace fathom::worker
