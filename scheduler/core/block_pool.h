// scheduler/core/block_pool.h: hands out KV blocks by id and counts their references. It owns no
// memory of a device. Block 0 is padding and is never handed out: ids run from 1 to total_blocks().
// Thread: not thread-safe; owned by the driver thread. Invariant after each call: free_blocks() +
// blocks with a reference == total_blocks().
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/types.h"

namespace fathom::scheduler {

class BlockPool {
 public:
  // `blocks` counts the padding block. REQUIRES: blocks >= 1.
  explicit BlockPool(int32_t blocks);

  // All or nothing: `count` blocks with one reference each, or nullopt and no change. O(count).
  // REQUIRES: count >= 0.
  std::optional<std::vector<BlockId>> Allocate(int32_t count);

  // One more reference to each. REQUIRES: every id has a reference.
  void AddReference(std::span<const BlockId> blocks);

  // Drops one reference to each; a block without a reference is free at once. O(count).
  // REQUIRES: every id has a reference (a double free is our bug: FATHOM_CHECK).
  void Release(std::span<const BlockId> blocks);

  int32_t free_blocks() const { return static_cast<int32_t>(free_.size()); }
  int32_t total_blocks() const { return static_cast<int32_t>(references_.size()) - 1; }
  int32_t used_blocks() const { return total_blocks() - free_blocks(); }
  // REQUIRES: 0 < block <= total_blocks().
  int32_t references(BlockId block) const { return references_[Index(block)]; }

 private:
  size_t Index(BlockId block) const;

  std::vector<BlockId> free_;        // Last in, first out: warm blocks are used again first.
  std::vector<int32_t> references_;  // By block id; [0] is padding.
};

}  // namespace fathom::scheduler
