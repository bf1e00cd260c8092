// worker/cpu/kv_cache.h: the pool of KV blocks of one rank, allocated once at start. A block id
// names the same index in each plane of each layer, fp32, [block][head][token][width] for this
// rank's heads; the planes lie one after the other in the order of the layers. Block 0 is padding
// and never holds a sequence. Thread: the engine thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/status.h"
#include "common/types.h"
#include "modeling/spec/rank_model.h"

namespace fathom::worker {

struct KvShape {
  std::vector<std::vector<KvPlane>> layers;  // This rank's planes of each.
  int32_t block_tokens = 0;                  // 16, 32, 64 or 128.
  int32_t pool_blocks = 0;                   // With block 0.

  // Tokens of the longest sequence that the pool can hold.
  int64_t pool_tokens() const { return int64_t{pool_blocks - 1} * block_tokens; }
};
KvShape KvShapeOf(const RankModel& model, int32_t block_tokens, int32_t pool_blocks);

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

  // Whether a sequence may use `block`: 1 to pool_blocks - 1.
  bool Contains(BlockId block) const {
    return block.value >= 1 && block.value < shape_.pool_blocks;
  }

  // The first block of a layer's plane; block b starts at b * BlockFloats(layer, plane).
  float* Plane(int32_t layer, int32_t plane) { return PlaceOf(layer, plane).first; }
  int64_t BlockFloats(int32_t layer, int32_t plane) const {
    return PlaceOf(layer, plane).block_floats;
  }

  // Every plane of `from` to `to`. OUT_OF_RANGE when either is not in the pool.
  absl::Status Copy(BlockId from, BlockId to);
  // Zeroes every plane of `block`. OUT_OF_RANGE when it is not in the pool.
  absl::Status Zero(BlockId block);

 private:
  struct Place {
    float* first = nullptr;
    int64_t block_floats = 0;
  };

  KvCache(const KvShape& shape, float* memory, size_t bytes);
  absl::Status CheckBlock(BlockId block) const;
  const Place& PlaceOf(int32_t layer, int32_t plane) const {
    return places_[static_cast<size_t>(first_plane_[static_cast<size_t>(layer)] + plane)];
  }

  const KvShape shape_;
  float* const memory_;
  const size_t bytes_;
  std::vector<Place> places_;         // Of all planes.
  std::vector<int32_t> first_plane_;  // Of each layer, in places_.
};

}  // namespace fathom::worker
