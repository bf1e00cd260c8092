// scheduler/core/prefix_index.h: finds the KV blocks of one group by the tokens that they hold. An
// entry is a full block. Its key is (parent entry, tokens): the parent is the entry of the block
// before it, or for a sequence's first block the root of its scope (tenant and salt), so that
// sequences of different scopes have no entry in common. The hash of an entry is over its scope and
// all tokens up to its end; it only finds candidates. A hit needs the same parent and the same
// tokens, so two texts of one hash never meet.
// The index knows nothing of references. Its caller erases an entry before the block gets other
// content. An entry whose ancestor was erased cannot be found any more; it stays until it is erased
// itself. Group, model and arithmetic are no part of the key: each epoch of a group has an index.
// Thread: not thread-safe; owned by the driver thread. Memory: 40 bytes and the tokens (4 bytes
// each) for each block of the pool, and 4 to 8 bytes of hash table.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/status.h"
#include "common/types.h"

namespace fathom::scheduler {

// The tokens of a sequence: its prompt, then its generated ids.
struct SequenceTokens {
  std::span<const TokenId> prompt, generated;

  int32_t size() const { return static_cast<int32_t>(prompt.size() + generated.size()); }
  // Tokens [begin, begin + count); in `scratch` if they are not consecutive in memory. REQUIRES:
  // begin + count <= size().
  std::span<const TokenId> Slice(int32_t begin, int32_t count, std::vector<TokenId>* scratch) const;
};

// Appends to `hashes` those of the full blocks of `tokens` that it does not have yet. hashes[i] is
// over the scope and the tokens of blocks 0 to i.
void ExtendHashes(std::string_view scope, const SequenceTokens& tokens, int32_t block_tokens,
                  std::vector<uint64_t>* hashes);

// The kinds of state (common/block_kind.h) that exist at the end of a block, as bits. Keys and
// values of tokens exist in each block of a sequence. A state of a whole prefix, as a recurrent
// layer has, exists only where the worker saved it.
using StateKinds = uint8_t;
inline constexpr StateKinds kTokenState = 1;

class PrefixIndex {
 public:
  // An entry, which may have been erased since. Serial numbers are never used again.
  struct Place {
    BlockId block;  // 0: a root.
    uint64_t serial = 0;
  };
  struct Match {
    std::vector<BlockId> blocks;  // From the sequence's first block on.
    Place last;                   // The entry of blocks.back(); default: there is none.
  };

  // `pool_blocks` counts the padding block. REQUIRES: pool_blocks >= 1, block_tokens >= 1.
  PrefixIndex(int32_t pool_blocks, int32_t block_tokens);

  // The longest chain of entries that holds the first tokens of `tokens`, of at most `blocks_max`
  // blocks, and ends where all of `kinds` exist: a model with several kinds of state can continue
  // only there. REQUIRES: `hashes` has those of `blocks_max` blocks.
  Match Find(std::string_view scope, const SequenceTokens& tokens, std::span<const uint64_t> hashes,
             int32_t blocks_max, StateKinds kinds = kTokenState) const;

  // Goes on from `at`, or from the root of `scope` if `index` is 0: the entry of block `index` of
  // the sequence. If there is none, `block` becomes its entry (*added). Default Place: there is
  // none, and none was added, because `block` is 0, because the entry at `at` was erased, or
  // because the bucket is full. REQUIRES: `block` has no entry.
  Place FindOrAdd(std::string_view scope, const Place& at, const SequenceTokens& tokens,
                  std::span<const uint64_t> hashes, int32_t index, BlockId block, bool* added);

  // More kinds of state exist at the end of the block. REQUIRES: it has an entry.
  void AddKinds(BlockId block, StateKinds kinds);

  bool Has(BlockId block) const { return At(block).serial != 0; }
  // REQUIRES: Has(block).
  void Erase(BlockId block);

  int32_t size() const { return size_; }
  // INTERNAL naming the first broken invariant. O(blocks).
  absl::Status Check() const;

 private:
  struct Entry {
    uint64_t serial = 0;  // 0: the block has no entry.
    uint64_t parent = 0;  // Serial number of an entry or a root.
    uint64_t hash = 0;
    int32_t next = 0;  // The next block of the bucket; 0: none.
    StateKinds kinds = 0;
  };
  struct Root {
    uint64_t serial = 0;
    int32_t children = 0;
  };
  using Roots = std::map<std::string, Root, std::less<>>;

  const Entry& At(BlockId block) const { return entries_[static_cast<size_t>(block.value)]; }
  Entry& At(BlockId block) { return entries_[static_cast<size_t>(block.value)]; }
  size_t Bucket(uint64_t hash) const { return hash & (heads_.size() - 1); }
  std::span<TokenId> TokensOf(BlockId block) const;
  // The entry of these tokens under `parent`, or 0. `probes`: the entries that were looked at.
  BlockId Search(uint64_t parent, uint64_t hash, std::span<const TokenId> tokens,
                 int32_t* probes) const;

  const int32_t block_tokens_;
  std::vector<Entry> entries_;         // By block id.
  std::vector<int32_t> heads_;         // First block of each bucket; 0: none.
  std::unique_ptr<TokenId[]> tokens_;  // [block][block_tokens]; only those of entries are set.
  Roots roots_;                        // By scope; those with children.
  absl::flat_hash_map<uint64_t, Roots::iterator> root_of_;  // By serial number.
  uint64_t next_serial_ = 1;
  int32_t size_ = 0;
  mutable std::vector<TokenId> scratch_;
};

}  // namespace fathom::scheduler
