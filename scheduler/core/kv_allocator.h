// scheduler/core/kv_allocator.h: the KV blocks of one group's sequences, in tokens. Planning and
// placement ask only this class for blocks, so that a prefix cache or several kinds of blocks can
// be added here without a change of the callers. Thread: not thread-safe; owned by the driver
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cluster/plan.h"
#include "common/types.h"
#include "scheduler/core/block_pool.h"

namespace fathom::scheduler {

// What a sequence starts with in its slot.
struct KvReservation {
  std::vector<BlockId> blocks;    // For all of its tokens, in their order.
  int32_t computed_tokens = 0;    // The KV of this many first tokens is in the blocks.
  std::vector<BlockCopy> copies;  // The first plan that uses the blocks must do them.
};

class KvAllocator {
 public:
  // `pool_blocks` counts the padding block. REQUIRES: pool_blocks >= 1, block_tokens >= 1.
  KvAllocator(int32_t pool_blocks, int32_t block_tokens)
      : pool_(pool_blocks), block_tokens_(block_tokens) {}

  // Whether Reserve would succeed for `tokens` tokens.
  bool HasRoomFor(int32_t tokens) const { return pool_.free_blocks() >= BlocksFor(tokens); }

  // Blocks for a sequence's `tokens` known tokens; nullopt: there is no room, and nothing changed.
  std::optional<KvReservation> Reserve(int32_t tokens);

  // Whether `blocks` hold `tokens` tokens.
  bool Holds(std::span<const BlockId> blocks, int32_t tokens) const {
    return static_cast<int64_t>(blocks.size()) * block_tokens_ >= tokens;
  }
  // Appends a block to `blocks`. False: there is no room, and nothing changed.
  bool Grow(std::vector<BlockId>* blocks);

  // Gives back the blocks of a sequence that leaves its slot.
  void Release(std::span<const BlockId> blocks) { pool_.Release(blocks); }

  const BlockPool& pool() const { return pool_; }
  int32_t block_tokens() const { return block_tokens_; }

 private:
  int32_t BlocksFor(int32_t tokens) const { return (tokens + block_tokens_ - 1) / block_tokens_; }

  BlockPool pool_;
  const int32_t block_tokens_;
};

}  // namespace fathom::scheduler
