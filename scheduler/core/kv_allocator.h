// scheduler/core/kv_allocator.h: the KV blocks of one group's sequences, in tokens: the blocks with
// their references (block_pool.h) and those that can be found again (prefix_index.h). Planning and
// placement ask only this class for blocks.
// What a sequence computed stays in its blocks when it leaves; such a block counts as free, and is
// given to another sequence when no other block is left, the one that was used longest ago first.
// Until then a sequence that begins with the same tokens shares it. A block that two sequences may
// see is never written: a sequence shares whole blocks only, and computes at least its last token
// itself. Thread: not thread-safe; owned by the driver thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cluster/plan.h"
#include "common/status.h"
#include "common/types.h"
#include "scheduler/core/block_pool.h"
#include "scheduler/core/prefix_index.h"

namespace fathom::scheduler {

// What a sequence starts with in its slot.
struct KvReservation {
  std::vector<BlockId> blocks;    // For all of its tokens, in their order.
  int32_t computed_tokens = 0;    // The KV of this many first tokens is in the blocks.
  std::vector<BlockCopy> copies;  // The first plan that uses the blocks must do them.
  int32_t indexed_blocks = 0;     // So many first blocks were found in the index,
  PrefixIndex::Place indexed_at;  // and this is the entry of the last of them.
};

// What a sequence may share: blocks that the index has for its scope and tokens.
struct PrefixQuery {
  std::string scope;
  SequenceTokens tokens;
  std::span<const uint64_t> hashes;  // ExtendHashes of them.
  int32_t tokens_max = 0;            // At most so many first tokens.
};

class KvAllocator {
 public:
  // `pool_blocks` counts the padding block. REQUIRES: pool_blocks >= 1, block_tokens >= 1.
  KvAllocator(int32_t pool_blocks, int32_t block_tokens)
      : pool_(pool_blocks), index_(pool_blocks, block_tokens), block_tokens_(block_tokens) {}

  // Whether Reserve would succeed for `tokens` tokens. `query`: as in Reserve.
  bool HasRoomFor(int32_t tokens, const PrefixQuery* query = nullptr) const;
  // The first tokens that Reserve would find in the index.
  int32_t CachedTokens(const PrefixQuery& query) const;

  // Blocks for a sequence's `tokens` known tokens; nullopt: there is no room, and nothing changed.
  // With a query (not nullptr) the first blocks may be shared ones of the index.
  std::optional<KvReservation> Reserve(int32_t tokens, const PrefixQuery* query = nullptr);

  // The same for a sequence whose first `shared_tokens` tokens are those in `source`, the blocks of
  // a sequence of the same prompt: whole blocks are shared, and what is in the next one is copied.
  // REQUIRES: `source` has references and holds shared_tokens < tokens computed tokens.
  std::optional<KvReservation> Fork(int32_t tokens, std::span<const BlockId> source,
                                    int32_t shared_tokens);

  // Makes the blocks of a sequence findable that are full with the first `tokens` tokens of
  // `query`. `indexed_blocks` and `at` are those of its reservation, and are moved on. A block
  // whose content another block has in the index already is passed over. REQUIRES: the KV of these
  // tokens is in the blocks, a clean result of a later row has shown that it is finite, and the
  // sequence was reserved these blocks.
  void Index(const PrefixQuery& query, std::span<const BlockId> blocks, int32_t tokens,
             int32_t* indexed_blocks, PrefixIndex::Place* at);

  // No sequence finds the blocks from now on, nor what follows them in the index.
  void Drop(std::span<const BlockId> blocks);

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
  // Blocks that were findable and were given to another sequence.
  uint64_t evictions_total() const { return evictions_total_; }

  // INTERNAL naming the first broken invariant. O(blocks).
  absl::Status Check() const;

 private:
  int32_t BlocksFor(int32_t tokens) const { return (tokens + block_tokens_ - 1) / block_tokens_; }
  PrefixIndex::Match Find(const PrefixQuery& query) const;
  // `count` blocks with one reference each. REQUIRES: free_blocks() >= count.
  std::vector<BlockId> Take(int32_t count);

  BlockPool pool_;
  PrefixIndex index_;
  const int32_t block_tokens_;
  uint64_t evictions_total_ = 0;
};

}  // namespace fathom::scheduler
