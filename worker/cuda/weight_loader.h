// worker/cuda/weight_loader.h: files to device memory. Each of some threads takes the next piece,
// reads it into one of its two pinned buffers and starts the copy to the device on a stream of its
// own; while that runs it reads the next piece into the other. Pinning costs more than reading, so
// the buffers are small.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "modeling/checkpoint/weight_pieces.h"

namespace fathom::worker {

// The monotonic clock by which a load and its parts are timed.
int64_t LoadTimeUs();

// Means of the readers.
struct CopyTimes {
  int64_t pin_us = 0;
  int64_t read_us = 0;
  int64_t convert_us = 0;
  int64_t wait_us = 0;
};

// Copies every piece to its place in `arena` of the current device with `readers` threads; all is
// there when it returns. The first error of a reader stops all of them. REQUIRES: readers > 0.
absl::Status CopyPieces(const WeightPieces& pieces, std::byte* arena, int readers,
                        CopyTimes* times);

}  // namespace fathom::worker
