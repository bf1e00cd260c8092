#include "worker/comm/shm_stages.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/check.h"

namespace fathom::worker {
namespace {

constexpr uint64_t kStagesUse = 0x73746167'65730000;  // "stages".
constexpr int64_t kRowsBytesMax = int64_t{4} << 20;
constexpr int64_t kRingBytesMax = int64_t{1} << 30;
// Counters begin just below 2^32, so that their wrap is no rare event.
constexpr uint32_t kFirstCount = 0xffffe000;

uint32_t CountOf(uint64_t moved) { return kFirstCount + static_cast<uint32_t>(moved); }

// Which ranks exchange what depends on both numbers, so both are part of the region's use.
ShmRegion::Shape RegionShape(const GroupShape& shape) {
  return {kStagesUse + static_cast<uint64_t>(shape.pp), shape.ranks()};
}

}  // namespace

int64_t RingBytes(const GroupShape& shape, const StageMessages& messages) {
  const int64_t steps = shape.pp + 1;
  return std::max(steps * messages.samples_bytes,
                  std::min(steps * messages.rows_bytes, kRowsBytesMax));
}

ShmStages::ShmStages(std::unique_ptr<ShmRegion> region, const GroupShape& shape, int32_t rank)
    : region_(std::move(region)),
      shape_(shape),
      rank_(rank),
      ring_bytes_(static_cast<size_t>(region_->unit())),
      to_next_(RingOf(rank)),
      // The ring of the rank before this one; the last stage is before the first one.
      from_previous_(RingOf((rank + shape.ranks() - shape.tp) % shape.ranks())) {}

ShmStages::Ring ShmStages::RingOf(int32_t rank) const {
  auto* ends = reinterpret_cast<Ends*>(region_->data());
  auto* bytes = region_->data() + static_cast<size_t>(shape_.ranks()) * sizeof(Ends);
  return {ends + rank, bytes + static_cast<size_t>(rank) * ring_bytes_, 0};
}

absl::StatusOr<std::unique_ptr<ShmStages>> ShmStages::Create(const GroupShape& shape,
                                                             int64_t ring_bytes) {
  FATHOM_CHECK(shape.pp > 1 && shape.ranks() <= kGroupRanksMax && ring_bytes > 0 &&
               ring_bytes < kRingBytesMax);
  const auto ranks = static_cast<size_t>(shape.ranks());
  FATHOM_ASSIGN_OR_RETURN(
      std::unique_ptr<ShmRegion> region,
      ShmRegion::Create(RegionShape(shape), ring_bytes,
                        ranks * (sizeof(Ends) + static_cast<size_t>(ring_bytes))));
  auto* ends = reinterpret_cast<Ends*>(region->data());
  for (size_t rank = 0; rank < ranks; ++rank) {
    ends[rank].written.Set(kFirstCount);
    ends[rank].read.Set(kFirstCount);
  }
  return std::unique_ptr<ShmStages>(new ShmStages(std::move(region), shape, 0));
}

absl::StatusOr<std::unique_ptr<ShmStages>> ShmStages::Open(const std::string& name,
                                                           const GroupShape& shape, int32_t rank) {
  FATHOM_CHECK(shape.pp > 1 && rank > 0 && rank < shape.ranks());
  FATHOM_ASSIGN_OR_RETURN(std::unique_ptr<ShmRegion> region,
                          ShmRegion::Open(RegionShape(shape), name));
  const auto ranks = static_cast<size_t>(shape.ranks());
  if (region->unit() <= 0 || region->unit() >= kRingBytesMax ||
      region->bytes() < ranks * (sizeof(Ends) + static_cast<size_t>(region->unit()))) {
    return Invalid("the shared memory of rank 0 is too small for the rings of {} ranks", ranks);
  }
  return std::unique_ptr<ShmStages>(new ShmStages(std::move(region), shape, rank));
}

absl::Status ShmStages::Ended(const char* what) const {
  return Aborted("the group's epoch ended while rank {} waited to {} a message", rank_, what);
}

// Each end waits for at most a quarter of the ring, so that the two never wait for each other, and
// moves what there is.
absl::Status ShmStages::Send(std::span<const std::byte> bytes) {
  Ring& ring = to_next_;
  if (region_->aborted().load() != 0) return Ended("send");
  while (!bytes.empty()) {
    const size_t least = std::min(bytes.size(), (ring_bytes_ + 3) / 4);
    const uint32_t written = CountOf(ring.moved);
    if (!ring.ends->read.WaitFor(
            written + static_cast<uint32_t>(least) - static_cast<uint32_t>(ring_bytes_),
            region_->aborted(), Wait::kLong)) {
      return Ended("send");
    }
    const uint32_t held = written - ring.ends->read.value.load(std::memory_order_acquire);
    const size_t at = ring.moved % ring_bytes_;
    const size_t count = std::min({bytes.size(), ring_bytes_ - held, ring_bytes_ - at});
    std::memcpy(ring.bytes + at, bytes.data(), count);
    bytes = bytes.subspan(count);
    ring.moved += count;
    ring.ends->written.Set(CountOf(ring.moved));
  }
  return absl::OkStatus();
}

absl::Status ShmStages::Receive(std::span<std::byte> bytes) {
  Ring& ring = from_previous_;
  if (region_->aborted().load() != 0) return Ended("receive");
  while (!bytes.empty()) {
    const size_t least = std::min(bytes.size(), (ring_bytes_ + 3) / 4);
    const uint32_t read = CountOf(ring.moved);
    if (!ring.ends->written.WaitFor(read + static_cast<uint32_t>(least), region_->aborted(),
                                    Wait::kLong)) {
      return Ended("receive");
    }
    const uint32_t held = ring.ends->written.value.load(std::memory_order_acquire) - read;
    const size_t at = ring.moved % ring_bytes_;
    const size_t count = std::min({bytes.size(), size_t{held}, ring_bytes_ - at});
    std::memcpy(bytes.data(), ring.bytes + at, count);
    bytes = bytes.subspan(count);
    ring.moved += count;
    ring.ends->read.Set(CountOf(ring.moved));
  }
  return absl::OkStatus();
}

void ShmStages::Abort() {
  region_->aborted().store(1);
  auto* ends = reinterpret_cast<Ends*>(region_->data());
  for (int32_t rank = 0; rank < shape_.ranks(); ++rank) {
    ends[rank].written.WakeAll();
    ends[rank].read.WakeAll();
  }
}

}  // namespace fathom::worker
