// worker/comm/shm_region.h: shared memory of the ranks of one host: the only code that makes,
// names, locks, opens, removes and unmaps it. What the memory is for is the user's matter (ShmComm,
// ShmStages).
// Thread: the engine thread calls Create and Open; any thread may call the other methods.
// Invariant: the name in the file system exists until every rank is attached, or until the first
// ShmRegion of it is destroyed. The process that makes a region holds a lock (flock) on it while it
// has a name. So Create can recognize the names whose maker was killed, and removes those of this
// user.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "common/status.h"

namespace fathom::worker {

class ShmRegion {
 public:
  // What a region is for. An opener with another use or number of ranks is refused.
  struct Shape {
    uint64_t use = 0;   // A constant of the class that uses the region.
    int32_t ranks = 0;  // The processes that attach, the maker included.
  };

  // Makes a region of zeros with a random name and mode 0600. `unit` is a number of the user, which
  // the other ranks read. RESOURCE_EXHAUSTED: /dev/shm has not enough room, or this user may not
  // write there; the message says how much is needed.
  static absl::StatusOr<std::unique_ptr<ShmRegion>> Create(const Shape& shape, int64_t unit,
                                                           size_t bytes);
  // Opens the region of another rank by its name. INVALID_ARGUMENT: it is no such region.
  static absl::StatusOr<std::unique_ptr<ShmRegion>> Open(const Shape& shape,
                                                         const std::string& name);
  ~ShmRegion();
  ShmRegion(const ShmRegion&) = delete;
  ShmRegion& operator=(const ShmRegion&) = delete;

  const std::string& name() const { return name_; }
  int64_t unit() const;
  // The memory after the header; it begins at a page.
  std::byte* data() const;
  size_t bytes() const;

  // Set once and by any rank: no wait of any rank in this region continues. The user wakes the
  // waiting ranks.
  std::atomic<uint32_t>& aborted() const;

 private:
  struct Header;
  // `lock`: the locked file of the maker, which the ShmRegion takes over; -1 on other ranks.
  ShmRegion(std::string name, void* memory, size_t bytes, int lock);
  void Unlink();

  const std::string name_;
  const int lock_;
  Header* const header_;
  const size_t mapped_bytes_;
};

}  // namespace fathom::worker
