// worker/cpu/kv_cache.h: the KV blocks of one rank, allocated once at start. A block id is the
// index of a block in each plane of each layer. A plane is fp32 [block][head][token][width] with
// the heads of this rank; the planes follow one another in the order of the layers. Block 0 is
// padding and never belongs to a sequence. Thread: the engine thread.
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
  std::vector<std::vector<KvPlane>> layers;  // The planes of this rank, by layer.
  int32_t block_tokens = 0;                  // 16, 32, 64 or 128.
  int32_t pool_blocks = 0;                   // Including block 0.

  // The tokens of the longest sequence that the pool can hold.
  int64_t pool_tokens() const { return int64_t{pool_blocks - 1} * block_tokens; }
};
KvShape KvShapeOf(const RankModel& model, int32_t block_tokens, int32_t pool_blocks);

class KvCache {
 public:
  // The bytes of one block in all planes of this rank.
  static size_t BytesPerBlock(const KvShape& shape);

  // RESOURCE_EXHAUSTED: there is not enough memory. REQUIRES: a valid shape, pool_blocks >= 2.
  static absl::StatusOr<std::unique_ptr<KvCache>> Allocate(const KvShape& shape);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  const KvShape& shape() const { return shape_; }

  // Whether `block` may belong to a sequence: it is in 1 to pool_blocks - 1.
  bool Contains(BlockId block) const {
    return block.value >= 1 && block.value < shape_.pool_blocks;
  }

  // The first block of a plane of a layer. Block b begins at b * BlockFloats(layer, plane).
  float* Plane(int32_t layer, int32_t plane) { return PlaceOf(layer, plane).first; }
  int64_t BlockFloats(int32_t layer, int32_t plane) const {
    return PlaceOf(layer, plane).block_floats;
  }

  // Copies block `from` to block `to` in every plane. OUT_OF_RANGE: one of them is not in the pool.
  absl::Status Copy(BlockId from, BlockId to) { return CopyFrom(*this, from, to); }
  // The same from a block of another pool. REQUIRES: its blocks have the same shape.
  absl::Status CopyFrom(const KvCache& source, BlockId from, BlockId to);
  // Zeroes `block` in every plane. OUT_OF_RANGE: it is not in the pool.
  absl::Status Zero(BlockId block);

 private:
  struct Place {
    float* first = nullptr;
    int64_t block_floats = 0;
  };

  KvCache(const KvShape& shape, float* memory, size_t bytes);
  absl::Status CheckBlock(BlockId block) const;
  const Place& PlaceOf(int32_t layer, int32_t plane) const {
    const int64_t first = first_plane_[static_cast<size_t>(layer)];
    return places_[static_cast<size_t>(first + plane)];
  }

  const KvShape shape_;
  float* const memory_;
  const size_t bytes_;
  std::vector<Place> places_;         // All planes.
  std::vector<int32_t> first_plane_;  // The index in places_ of the first plane of each layer.
};

}  // namespace fathom::worker
