#include "worker/cpu/kv_cache.h"

#include <sys/mman.h>

#include <cstring>

#include "common/check.h"

namespace fathom::worker {
namespace {

constexpr int64_t kFloatBytes = 4;

int64_t BlockBytes(const KvShape& shape, const KvPlane& plane) {
  return KvBytes({&plane, 1}, kFloatBytes, shape.block_tokens);
}

}  // namespace

KvShape KvShapeOf(const RankModel& model, int32_t block_tokens, int32_t pool_blocks) {
  KvShape shape{.block_tokens = block_tokens, .pool_blocks = pool_blocks};
  for (const RankLayer& layer : model.layers) shape.layers.push_back(layer.attention.planes);
  return shape;
}

size_t KvCache::BytesPerBlock(const KvShape& shape) {
  int64_t bytes = 0;
  for (const auto& planes : shape.layers) bytes += KvBytes(planes, kFloatBytes, shape.block_tokens);
  return static_cast<size_t>(bytes);
}

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Allocate(const KvShape& shape) {
  const size_t block_bytes = BytesPerBlock(shape);
  FATHOM_CHECK(block_bytes > 0 && shape.block_tokens > 0 && shape.block_tokens % 16 == 0 &&
                   shape.pool_blocks >= 2,
               "{} layers, {} bytes a block, block_tokens {} pool_blocks {}", shape.layers.size(),
               block_bytes, shape.block_tokens, shape.pool_blocks);
  const size_t bytes = block_bytes * static_cast<size_t>(shape.pool_blocks);
  // Anonymous pages are zero, so memory that no sequence has written yet is not read as NaN.
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return Exhausted(
        "a KV cache of {} blocks takes {} bytes, which this machine refused; give it "
        "less by --kv-cache-memory",
        shape.pool_blocks, bytes);
  }
  madvise(memory, bytes, MADV_HUGEPAGE);  // Huge pages, if the kernel has them, reduce TLB misses.
  return std::unique_ptr<KvCache>(new KvCache(shape, static_cast<float*>(memory), bytes));
}

KvCache::KvCache(const KvShape& shape, float* memory, size_t bytes)
    : shape_(shape), memory_(memory), bytes_(bytes) {
  float* next = memory;
  for (const auto& planes : shape.layers) {
    first_plane_.push_back(static_cast<int32_t>(places_.size()));
    for (const KvPlane& plane : planes) {
      const int64_t block_floats = BlockBytes(shape, plane) / kFloatBytes;
      places_.push_back({next, block_floats});
      next += block_floats * shape.pool_blocks;
    }
  }
}

KvCache::~KvCache() { munmap(memory_, bytes_); }

absl::Status KvCache::CheckBlock(BlockId block) const {
  if (Contains(block)) return absl::OkStatus();
  return OutOfRange("block {} is not in this rank's pool of blocks 1 to {}", block.value,
                    shape_.pool_blocks - 1);
}

absl::Status KvCache::CopyFrom(const KvCache& source, BlockId from, BlockId to) {
  FATHOM_RETURN_IF_ERROR(source.CheckBlock(from));
  FATHOM_RETURN_IF_ERROR(CheckBlock(to));
  FATHOM_CHECK(source.places_.size() == places_.size());
  if (&source == this && from == to) return absl::OkStatus();
  for (size_t i = 0; i < places_.size(); ++i) {
    const Place& place = places_[i];
    FATHOM_CHECK(source.places_[i].block_floats == place.block_floats);
    std::memcpy(place.first + to.value * place.block_floats,
                source.places_[i].first + from.value * place.block_floats,
                static_cast<size_t>(place.block_floats) * sizeof(float));
  }
  return absl::OkStatus();
}

absl::Status KvCache::Zero(BlockId block) {
  FATHOM_RETURN_IF_ERROR(CheckBlock(block));
  for (const Place& place : places_) {
    std::memset(place.first + block.value * place.block_floats, 0,
                static_cast<size_t>(place.block_floats) * sizeof(float));
  }
  return absl::OkStatus();
}

}  // namespace fathom::worker
