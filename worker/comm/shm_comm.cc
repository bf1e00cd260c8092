#include "worker/comm/shm_comm.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/check.h"

namespace fathom::worker {
namespace {

constexpr uint64_t kCollectivesUse = 0x636f6c6c'65637473;  // "collects".

constexpr size_t CounterBytes(int size) {
  return static_cast<size_t>(size) * sizeof(SharedCounter);
}

size_t BytesFor(int size, int64_t slot_floats) {
  return CounterBytes(size) +
         2 * static_cast<size_t>(size) * static_cast<size_t>(slot_floats) * sizeof(float);
}

}  // namespace

ShmComm::ShmComm(std::unique_ptr<ShmRegion> region, int rank, int size)
    : region_(std::move(region)),
      rank_(rank),
      size_(size),
      slot_floats_(region_->unit()),
      published_(reinterpret_cast<SharedCounter*>(region_->data())),
      slots_(reinterpret_cast<float*>(region_->data() + CounterBytes(size))) {}

absl::StatusOr<std::unique_ptr<ShmComm>> ShmComm::Create(int size, int64_t slot_floats) {
  FATHOM_CHECK(size >= 1 && size <= kRanksMax && slot_floats > 0);
  FATHOM_ASSIGN_OR_RETURN(
      std::unique_ptr<ShmRegion> region,
      ShmRegion::Create({kCollectivesUse, size}, slot_floats, BytesFor(size, slot_floats)));
  return std::unique_ptr<ShmComm>(new ShmComm(std::move(region), 0, size));
}

absl::StatusOr<std::unique_ptr<ShmComm>> ShmComm::Open(const std::string& name, int rank,
                                                       int size) {
  FATHOM_CHECK(rank > 0 && rank < size && size <= kRanksMax);
  FATHOM_ASSIGN_OR_RETURN(std::unique_ptr<ShmRegion> region,
                          ShmRegion::Open({kCollectivesUse, size}, name));
  if (region->unit() <= 0 || region->bytes() < BytesFor(size, region->unit())) {
    return Invalid("the shared memory of rank 0 is too small for {} ranks", size);
  }
  return std::unique_ptr<ShmComm>(new ShmComm(std::move(region), rank, size));
}

float* ShmComm::Slot(uint32_t meeting, int rank) const {
  return slots_ + ((meeting & 1) * static_cast<size_t>(size_) + static_cast<size_t>(rank)) *
                      static_cast<size_t>(slot_floats_);
}

absl::Status ShmComm::AllReduceSum(std::span<float> values) {
  for (size_t done = 0; done < values.size();) {
    const size_t count = std::min(values.size() - done, static_cast<size_t>(slot_floats_));
    float* const out = values.data() + done;
    const uint32_t meeting = meetings_;
    std::memcpy(Slot(meeting, rank_), out, count * sizeof(float));
    FATHOM_RETURN_IF_ERROR(Meet());
    std::memcpy(out, Slot(meeting, 0), count * sizeof(float));
    for (int peer = 1; peer < size_; ++peer) {
      const float* const part = Slot(meeting, peer);
      for (size_t i = 0; i < count; ++i) out[i] += part[i];
    }
    done += count;
  }
  return absl::OkStatus();
}

absl::Status ShmComm::AllGather(std::span<const float> mine, std::span<float> all) {
  FATHOM_CHECK(all.size() == static_cast<size_t>(size_) * mine.size());
  for (size_t done = 0; done < mine.size();) {
    const size_t count = std::min(mine.size() - done, static_cast<size_t>(slot_floats_));
    const uint32_t meeting = meetings_;
    std::memcpy(Slot(meeting, rank_), mine.data() + done, count * sizeof(float));
    FATHOM_RETURN_IF_ERROR(Meet());
    for (int peer = 0; peer < size_; ++peer) {
      std::memcpy(all.data() + static_cast<size_t>(peer) * mine.size() + done, Slot(meeting, peer),
                  count * sizeof(float));
    }
    done += count;
  }
  return absl::OkStatus();
}

absl::Status ShmComm::Meet() {
  const uint32_t meeting = ++meetings_;
  published_[rank_].Set(meeting);
  for (int peer = 0; peer < size_; ++peer) {
    if (peer != rank_ && !published_[peer].WaitFor(meeting, region_->aborted(), Wait::kShort)) {
      return Aborted("the group's epoch ended while rank {} waited for rank {}", rank_, peer);
    }
  }
  if (region_->aborted().load() != 0) return Aborted("the group's epoch ended");
  return absl::OkStatus();
}

void ShmComm::Abort() {
  region_->aborted().store(1);
  for (int rank = 0; rank < size_; ++rank) published_[rank].WakeAll();
}

}  // namespace fathom::worker
