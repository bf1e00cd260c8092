// worker/comm/stage_links.h: the messages between the stages of a pipeline, as one rank sees them.
// Each rank sends to the rank with its tp rank in the next stage, and receives from the one in the
// previous stage. After the last stage comes the first one again: a stage that is not the last
// sends rows, and the last stage sends samples. A link is a stream of bytes, so both ends use the
// same sizes in the same order. Thread: the engine thread. Errors: ABORTED if the epoch ended.
#pragma once

#include <cstddef>
#include <span>

#include "common/status.h"

namespace fathom::worker {

class StageLinks {
 public:
  virtual ~StageLinks() = default;

  // Waits until the link has room. A message that the link has no room for is taken in parts, as
  // the next stage receives it.
  virtual absl::Status Send(std::span<const std::byte> bytes) = 0;
  // Waits until the previous stage has sent so many bytes.
  virtual absl::Status Receive(std::span<std::byte> bytes) = 0;
};

}  // namespace fathom::worker
