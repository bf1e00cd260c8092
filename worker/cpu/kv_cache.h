// worker/cpu/kv_cache.h: the pool of key and value blocks of one rank, allocated once at start.
// A block id names the same index in each plane: K and V of every layer, fp32,
// [block][head][token][width] for this rank's heads. Block 0 is padding and never holds a sequence.
// Thread: the engine thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "common/status.h"
#include "common/types.h"

namespace fathom::worker {

struct KvShape {
  int32_t layers = 0;
  int32_t kv_heads = 0;  // This rank's.
  int32_t head_dim = 0;
  int32_t block_tokens = 0;  // 16, 32, 64 or 128.
  int32_t pool_blocks = 0;   // With block 0.

  // Tokens of the longest sequence that the pool can hold.
  int64_t pool_tokens() const { return int64_t{pool_blocks - 1} * block_tokens; }
};

class KvCache {
 public:
  // Bytes of one block over all planes of this rank.
  static size_t BytesPerBlock(const KvShape& shape);

  // RESOURCE_EXHAUSTED when the memory is not there. REQUIRES: a valid shape, pool_blocks >= 2.
  static absl::StatusOr<std::unique_ptr<KvCache>> Allocate(const KvShape& shape);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  const KvShape& shape() const { return shape_; }
  int64_t block_floats() const { return block_floats_; }

  // Whether a sequence may use `block`: 1 to pool_blocks - 1.
  bool Contains(BlockId block) const {
    return block.value >= 1 && block.value < shape_.pool_blocks;
  }

  // The first block of a layer's plane; block b starts at b * block_floats().
  float* Keys(int32_t layer) { return planes_ + 2 * layer * plane_floats_; }
  float* Values(int32_t layer) { return planes_ + (2 * layer + 1) * plane_floats_; }

  // Every plane of `from` to `to`. OUT_OF_RANGE when either is not in the pool.
  absl::Status Copy(BlockId from, BlockId to);
  // Zeroes every plane of `block`. OUT_OF_RANGE when it is not in the pool.
  absl::Status Zero(BlockId block);

 private:
  absl::Status CheckBlock(BlockId block) const;
  KvCache(const KvShape& shape, float* planes, size_t bytes);

  const KvShape shape_;
  const int64_t block_floats_;
  const int64_t plane_floats_;
  float* const planes_;
  const size_t bytes_;
};

}  // namespace fathom::worker
