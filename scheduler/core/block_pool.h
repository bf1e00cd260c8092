// scheduler/core/block_pool.h: hands out KV blocks by id and counts their references. It owns no
// memory of a device. Block 0 is padding and is never handed out: ids run from 1 to total_blocks().
// A block is in one of three states: it has references; or it has none and is free; or it has none
// and is kept, because its content can be found again (scheduler/core/prefix_index.h). The pool has
// the kept blocks without references in the order in which their last reference went.
// Thread: not thread-safe; owned by the driver thread. Invariant after each call: free_blocks() +
// blocks with a reference == total_blocks(); a kept block without references counts as free.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "common/status.h"
#include "common/types.h"

namespace fathom::scheduler {

class BlockPool {
 public:
  // `blocks` counts the padding block. REQUIRES: blocks >= 1.
  explicit BlockPool(int32_t blocks);

  // All or nothing: `count` blocks that are not kept, with one reference each, or nullopt and no
  // change. O(count). REQUIRES: count >= 0.
  std::optional<std::vector<BlockId>> Allocate(int32_t count);

  // One more reference to each. REQUIRES: every id has a reference or is kept.
  void AddReference(std::span<const BlockId> blocks);

  // Drops one reference to each, the last of `blocks` first. A block without a reference is free at
  // once, or stays kept. O(count). REQUIRES: every id has a reference (a double free is our bug:
  // FATHOM_CHECK).
  void Release(std::span<const BlockId> blocks);

  // From now on the block is kept. REQUIRES: it has a reference and is not kept.
  void Keep(BlockId block);
  // The block is kept no more; without references it is free. REQUIRES: it is kept.
  void Forget(BlockId block);
  bool is_kept(BlockId block) const { return At(block).kept; }
  // The kept block without references whose last reference went first. REQUIRES: there is one.
  BlockId OldestKept() const;

  int32_t free_blocks() const { return bare_blocks() + idle_; }
  // The free blocks that are not kept: what Allocate can hand out.
  int32_t bare_blocks() const { return static_cast<int32_t>(free_.size()); }
  // The kept blocks without references.
  int32_t idle_blocks() const { return idle_; }
  int32_t total_blocks() const { return static_cast<int32_t>(states_.size()) - 1; }
  int32_t used_blocks() const { return total_blocks() - free_blocks(); }
  // REQUIRES: 0 < block <= total_blocks().
  int32_t references(BlockId block) const { return At(block).references; }

  // INTERNAL naming the first broken invariant. O(blocks).
  absl::Status Check() const;

 private:
  struct State {
    int32_t references = 0;
    int32_t older = 0, newer = 0;  // In the ring of idle blocks; 0 is the ring's head.
    bool kept = false;
  };

  const State& At(BlockId block) const;
  State& At(BlockId block) { return const_cast<State&>(std::as_const(*this).At(block)); }
  void Link(int32_t block);
  void Unlink(int32_t block);

  std::vector<BlockId> free_;  // Last in, first out: warm blocks are used again first.
  std::vector<State> states_;  // By block id; [0] is padding, and the head of the ring.
  int32_t idle_ = 0;
};

}  // namespace fathom::scheduler
