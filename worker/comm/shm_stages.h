// worker/comm/shm_stages.h: the links between the stages of a group on one host: for each rank a
// ring of bytes in shared memory that it writes and one other rank reads. Sender and receiver count
// the bytes that they wrote and read modulo 2^32. Thread: the engine thread calls Create, Open,
// Send and Receive; any thread calls Abort. The memory is a ShmRegion.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/group_shape.h"
#include "common/status.h"
#include "worker/comm/shared_counter.h"
#include "worker/comm/shm_region.h"
#include "worker/comm/stage_links.h"

namespace fathom::worker {

// The longest messages of a step on a link.
struct StageMessages {
  int64_t rows_bytes = 0;
  int64_t samples_bytes = 0;
};

// The bytes of a ring. It has room for the samples of all steps in flight (pp + 1), so that the
// last stage never waits for the first one; otherwise two stages could wait for each other. The
// rows of all steps in flight have room if that is at most 4 MiB; longer ones are sent in parts.
int64_t RingBytes(const GroupShape& shape, const StageMessages& messages);

class ShmStages final : public StageLinks {
 public:
  // For rank 0: makes the rings of all ranks. Errors: those of ShmRegion::Create. REQUIRES: pp > 1;
  // 0 < ring_bytes < 2^30.
  static absl::StatusOr<std::unique_ptr<ShmStages>> Create(const GroupShape& shape,
                                                           int64_t ring_bytes);
  // For the other ranks: opens the region by the name() of rank 0. INVALID_ARGUMENT: it is no such
  // region, or has another shape.
  static absl::StatusOr<std::unique_ptr<ShmStages>> Open(const std::string& name,
                                                         const GroupShape& shape, int32_t rank);

  const std::string& name() const { return region_->name(); }
  absl::Status Send(std::span<const std::byte> bytes) override;
  absl::Status Receive(std::span<std::byte> bytes) override;

  // From now on Send and Receive of every rank return ABORTED, also those that wait.
  void Abort();

 private:
  // The counters of a ring. Each is raised by one process.
  struct Ends {
    SharedCounter written;
    SharedCounter read;
  };
  // One end of a ring, as this rank uses it.
  struct Ring {
    Ends* ends = nullptr;
    std::byte* bytes = nullptr;
    uint64_t moved = 0;  // The bytes that this end has written or read.
  };

  ShmStages(std::unique_ptr<ShmRegion> region, const GroupShape& shape, int32_t rank);
  Ring RingOf(int32_t rank) const;
  absl::Status Ended(const char* what) const;

  const std::unique_ptr<ShmRegion> region_;
  const GroupShape shape_;
  const int32_t rank_;
  const size_t ring_bytes_;
  Ring to_next_;
  Ring from_previous_;
};

}  // namespace fathom::worker
