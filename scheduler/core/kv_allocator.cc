#include "scheduler/core/kv_allocator.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace fathom::scheduler {

PrefixIndex::Match KvAllocator::Find(const PrefixQuery& query) const {
  return index_.Find(query.scope, query.tokens, query.hashes, query.tokens_max / block_tokens_);
}

int32_t KvAllocator::CachedTokens(const PrefixQuery& query) const {
  return static_cast<int32_t>(Find(query).blocks.size()) * block_tokens_;
}

bool KvAllocator::HasRoomFor(int32_t tokens, const PrefixQuery* query) const {
  const int32_t missing = BlocksFor(tokens) - pool_.free_blocks();
  if (missing <= 0) return true;
  if (query == nullptr || missing > query->tokens_max / block_tokens_) return false;
  // A block that is in use can be shared without a free one.
  return std::ranges::count_if(Find(*query).blocks, [&](BlockId block) {
           return pool_.references(block) > 0;
         }) >= missing;
}

std::optional<KvReservation> KvAllocator::Reserve(int32_t tokens, const PrefixQuery* query) {
  PrefixIndex::Match match;
  if (query != nullptr) match = Find(*query);
  const auto cached = static_cast<int32_t>(match.blocks.size());
  const int32_t wanted = BlocksFor(tokens);
  FATHOM_CHECK(cached * block_tokens_ < tokens, "{} blocks of {} tokens", cached, tokens);
  pool_.AddReference(match.blocks);  // Before blocks are taken: it keeps them from eviction.
  if (wanted - cached > pool_.free_blocks()) {
    pool_.Release(match.blocks);
    return std::nullopt;
  }
  KvReservation reservation{.blocks = std::move(match.blocks),
                            .computed_tokens = cached * block_tokens_,
                            .copies = {},
                            .indexed_blocks = cached,
                            .indexed_at = match.last};
  const std::vector<BlockId> own = Take(wanted - cached);
  reservation.blocks.insert(reservation.blocks.end(), own.begin(), own.end());
  return reservation;
}

std::optional<KvReservation> KvAllocator::Fork(int32_t tokens, std::span<const BlockId> source,
                                               int32_t shared_tokens) {
  FATHOM_CHECK(shared_tokens < tokens && Holds(source, shared_tokens), "{} of {} tokens",
               shared_tokens, tokens);
  const int32_t whole = shared_tokens / block_tokens_;
  const int32_t own_blocks = BlocksFor(tokens) - whole;
  if (own_blocks > pool_.free_blocks()) return std::nullopt;
  const std::span<const BlockId> shared = source.first(static_cast<size_t>(whole));
  KvReservation reservation{.blocks = {shared.begin(), shared.end()},
                            .computed_tokens = shared_tokens};
  pool_.AddReference(shared);
  const std::vector<BlockId> own = Take(own_blocks);
  reservation.blocks.insert(reservation.blocks.end(), own.begin(), own.end());
  if (shared_tokens % block_tokens_ != 0) {
    reservation.copies.push_back({.from = source[static_cast<size_t>(whole)], .to = own.front()});
  }
  return reservation;
}

void KvAllocator::Index(const PrefixQuery& query, std::span<const BlockId> blocks, int32_t tokens,
                        int32_t* indexed_blocks, PrefixIndex::Place* at) {
  for (; (*indexed_blocks + 1) * block_tokens_ <= tokens; ++*indexed_blocks) {
    const BlockId block = blocks[static_cast<size_t>(*indexed_blocks)];
    // A fork shares this block without having looked it up; whoever computed it has indexed it.
    const bool has = index_.Has(block);
    bool added = false;
    const PrefixIndex::Place place =
        index_.FindOrAdd(query.scope, *at, query.tokens, query.hashes, *indexed_blocks,
                         has ? BlockId{} : block, &added);
    if (place.serial == 0) return;  // The sequence is indexed no further in this stay.
    if (added) pool_.Keep(block);
    *at = place;
  }
}

void KvAllocator::Drop(std::span<const BlockId> blocks) {
  for (const BlockId block : blocks) {
    if (!index_.Has(block)) continue;
    index_.Erase(block);
    pool_.Forget(block);
  }
}

bool KvAllocator::Grow(std::vector<BlockId>* blocks) {
  if (pool_.free_blocks() == 0) return false;
  blocks->push_back(Take(1).front());
  return true;
}

std::vector<BlockId> KvAllocator::Take(int32_t count) {
  while (pool_.bare_blocks() < count) {
    const BlockId oldest = pool_.OldestKept();
    index_.Erase(oldest);
    pool_.Forget(oldest);
    ++evictions_total_;
  }
  return *pool_.Allocate(count);
}

absl::Status KvAllocator::Check() const {
  FATHOM_RETURN_IF_ERROR(pool_.Check());
  FATHOM_RETURN_IF_ERROR(index_.Check());
  for (int32_t id = 1; id <= pool_.total_blocks(); ++id) {
    if (index_.Has(BlockId{id}) == pool_.is_kept(BlockId{id})) continue;
    return Internal("block {} is kept: {}, indexed: {}", id, pool_.is_kept(BlockId{id}),
                    index_.Has(BlockId{id}));
  }
  return absl::OkStatus();
}

}  // namespace fathom::scheduler
