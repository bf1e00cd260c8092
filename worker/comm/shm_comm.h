// worker/comm/shm_comm.h: collectives between the ranks of one host over shared memory.
// Each rank writes its part to its own buffer and publishes a sequence number; when all have, each
// rank reads all parts in rank order. Two buffers take turns, so one meeting of the ranks is enough
// for a collective: nobody writes a buffer again before everybody has published the collective
// after it, and so has read it. Thread: Create, Open and collectives by the engine thread; Abort by
// any. Invariant: the name in the file system lives until every rank is attached, or the first
// ShmComm of it dies. Rank 0 holds a lock (flock) on a region that has a name, so that a name whose
// rank 0 was killed can be told from one in use: Create removes those that this user left.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/status.h"
#include "worker/comm/comm.h"

namespace fathom::worker {

class ShmComm final : public Comm {
 public:
  static constexpr int kRanksMax = 64;

  // Rank 0: a new region under a random name, mode 0600. `slot_floats`: values of one rank that one
  // meeting carries; longer collectives take several. RESOURCE_EXHAUSTED: /dev/shm has not the
  // room, or this user may not write there; the message says how much is needed.
  static absl::StatusOr<std::unique_ptr<ShmComm>> Create(int size, int64_t slot_floats = 64 * 1024);
  // The other ranks, by rank 0's name(). INVALID_ARGUMENT: not such a region, or of another size.
  static absl::StatusOr<std::unique_ptr<ShmComm>> Open(const std::string& name, int rank, int size);
  ~ShmComm() override;
  ShmComm(const ShmComm&) = delete;
  ShmComm& operator=(const ShmComm&) = delete;

  const std::string& name() const { return name_; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status AllReduceSum(std::span<float> values) override;
  absl::Status AllGather(std::span<const float> mine, std::span<float> all) override;

  // Every rank's collectives, waiting and future ones, return ABORTED. For good.
  void Abort();

 private:
  struct Header;
  // `lock`: the locked file of rank 0, else -1; taken over.
  ShmComm(std::string name, int rank, Header* header, size_t bytes, int lock);

  float* Slot(uint32_t meeting, int rank) const;
  // Publishes this rank's part of the next meeting and waits for all others'.
  absl::Status Meet();
  absl::Status WaitFor(int peer, uint32_t meeting);
  void Unlink();

  const std::string name_;
  const int lock_;
  const int rank_;
  const int size_;
  Header* const header_;
  const size_t bytes_;
  const int64_t slot_floats_;
  float* const slots_;     // [2][size][slot_floats].
  uint32_t meetings_ = 0;  // Done. Wraps around.
};

}  // namespace fathom::worker
