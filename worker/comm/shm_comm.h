// worker/comm/shm_comm.h: collectives between the ranks of one host over shared memory. Each rank
// writes its part to its own buffer and publishes a sequence number. When all ranks have published,
// each rank reads all parts in rank order. There are two buffers, used in turn, so that one meeting
// of the ranks is enough for a collective: a rank writes a buffer again only after every rank has
// published the next collective, and has therefore read the buffer.
// Thread: the engine thread calls Create, Open and the collectives; any thread calls Abort. The
// memory is a ShmRegion.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/group_shape.h"
#include "common/status.h"
#include "worker/comm/comm.h"
#include "worker/comm/shared_counter.h"
#include "worker/comm/shm_region.h"

namespace fathom::worker {

class ShmComm final : public Comm {
 public:
  static constexpr int kRanksMax = kGroupRanksMax;

  // For rank 0: makes the region. `slot_floats`: the number of values of one rank in one meeting; a
  // longer collective takes several meetings. Errors: those of ShmRegion::Create.
  static absl::StatusOr<std::unique_ptr<ShmComm>> Create(int size, int64_t slot_floats = 64 * 1024);
  // For the other ranks: opens the region by the name() of rank 0. INVALID_ARGUMENT: it is no such
  // region, or has another size.
  static absl::StatusOr<std::unique_ptr<ShmComm>> Open(const std::string& name, int rank, int size);

  const std::string& name() const { return region_->name(); }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status AllReduceSum(std::span<float> values) override;
  absl::Status AllGather(std::span<const float> mine, std::span<float> all) override;

  // From now on all collectives of every rank return ABORTED, also those that wait.
  void Abort();

 private:
  ShmComm(std::unique_ptr<ShmRegion> region, int rank, int size);

  float* Slot(uint32_t meeting, int rank) const;
  // Publishes this rank's part of the next meeting and waits for the parts of all others.
  absl::Status Meet();

  const std::unique_ptr<ShmRegion> region_;
  const int rank_;
  const int size_;
  const int64_t slot_floats_;
  SharedCounter* const published_;  // [size]: the last meeting whose part the rank has written.
  float* const slots_;              // [2][size][slot_floats].
  uint32_t meetings_ = 0;           // The number of meetings done; wraps around.
};

}  // namespace fathom::worker
