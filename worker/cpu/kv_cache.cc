#include "worker/cpu/kv_cache.h"

#include <sys/mman.h>

#include <cstring>

#include "common/check.h"

namespace fathom::worker {
namespace {

int64_t BlockFloats(const KvShape& shape) {
  return int64_t{shape.kv_heads} * shape.block_tokens * shape.head_dim;
}

}  // namespace

size_t KvCache::BytesPerBlock(const KvShape& shape) {
  return static_cast<size_t>(2 * shape.layers * BlockFloats(shape)) * sizeof(float);
}

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Allocate(const KvShape& shape) {
  FATHOM_CHECK(shape.layers > 0 && shape.kv_heads > 0 && shape.head_dim > 0 &&
                   shape.block_tokens > 0 && shape.block_tokens % 16 == 0 && shape.pool_blocks >= 2,
               "layers {} kv_heads {} head_dim {} block_tokens {} pool_blocks {}", shape.layers,
               shape.kv_heads, shape.head_dim, shape.block_tokens, shape.pool_blocks);
  const size_t bytes = BytesPerBlock(shape) * static_cast<size_t>(shape.pool_blocks);
  // Zero pages, so that what no sequence has written yet is a number.
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return Exhausted(
        "a KV cache of {} blocks takes {} bytes, which this machine refused; give it "
        "less by --kv-cache-memory",
        shape.pool_blocks, bytes);
  }
  madvise(memory, bytes, MADV_HUGEPAGE);  // Fewer TLB misses where the kernel has them.
  return std::unique_ptr<KvCache>(new KvCache(shape, static_cast<float*>(memory), bytes));
}

KvCache::KvCache(const KvShape& shape, float* planes, size_t bytes)
    : shape_(shape),
      block_floats_(BlockFloats(shape)),
      plane_floats_(block_floats_ * shape.pool_blocks),
      planes_(planes),
      bytes_(bytes) {}

KvCache::~KvCache() { munmap(planes_, bytes_); }

absl::Status KvCache::CheckBlock(BlockId block) const {
  if (Contains(block)) return absl::OkStatus();
  return OutOfRange("block {} is not in this rank's pool of blocks 1 to {}", block.value,
                    shape_.pool_blocks - 1);
}

absl::Status KvCache::Copy(BlockId from, BlockId to) {
  FATHOM_RETURN_IF_ERROR(CheckBlock(from));
  FATHOM_RETURN_IF_ERROR(CheckBlock(to));
  if (from == to) return absl::OkStatus();
  for (int32_t plane = 0; plane < 2 * shape_.layers; ++plane) {
    float* first = planes_ + plane * plane_floats_;
    std::memcpy(first + to.value * block_floats_, first + from.value * block_floats_,
                static_cast<size_t>(block_floats_) * sizeof(float));
  }
  return absl::OkStatus();
}

absl::Status KvCache::Zero(BlockId block) {
  FATHOM_RETURN_IF_ERROR(CheckBlock(block));
  for (int32_t plane = 0; plane < 2 * shape_.layers; ++plane) {
    std::memset(planes_ + plane * plane_floats_ + block.value * block_floats_, 0,
                static_cast<size_t>(block_floats_) * sizeof(float));
  }
  return absl::OkStatus();
}

}  // namespace fathom::worker
