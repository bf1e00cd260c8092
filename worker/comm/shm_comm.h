// worker/comm/shm_comm.h: collectives between the ranks of one host over shared memory. Each rank
// writes its part to its own buffer and publishes a sequence number. When all ranks have published,
// each rank reads all parts in rank order. There are two buffers, used in turn, so that one meeting
// of the ranks is enough for a collective: a rank writes a buffer again only after every rank has
// published the next collective, and has therefore read the buffer.
// Thread: the engine thread calls Create, Open and the collectives; any thread calls Abort.
// Invariant: the name in the file system exists until every rank is attached, or until the first
// ShmComm of it is destroyed. Rank 0 holds a lock (flock) on a region that has a name. So Create
// can recognize the names whose rank 0 was killed, and removes those of this user.
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

  // For rank 0: makes a new region with a random name and mode 0600. `slot_floats`: the number of
  // values of one rank in one meeting; a longer collective takes several meetings.
  // RESOURCE_EXHAUSTED: /dev/shm has not enough room, or this user may not write there; the message
  // says how much is needed.
  static absl::StatusOr<std::unique_ptr<ShmComm>> Create(int size, int64_t slot_floats = 64 * 1024);
  // For the other ranks: opens the region by the name() of rank 0. INVALID_ARGUMENT: it is no such
  // region, or has another size.
  static absl::StatusOr<std::unique_ptr<ShmComm>> Open(const std::string& name, int rank, int size);
  ~ShmComm() override;
  ShmComm(const ShmComm&) = delete;
  ShmComm& operator=(const ShmComm&) = delete;

  const std::string& name() const { return name_; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status AllReduceSum(std::span<float> values) override;
  absl::Status AllGather(std::span<const float> mine, std::span<float> all) override;

  // From now on all collectives of every rank return ABORTED, also those that wait.
  void Abort();

 private:
  struct Header;
  // `lock`: the locked file of rank 0, which the ShmComm takes over; -1 on other ranks.
  ShmComm(std::string name, int rank, Header* header, size_t bytes, int lock);

  float* Slot(uint32_t meeting, int rank) const;
  // Publishes this rank's part of the next meeting and waits for the parts of all others.
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
  uint32_t meetings_ = 0;  // The number of meetings done; wraps around.
};

}  // namespace fathom::worker
