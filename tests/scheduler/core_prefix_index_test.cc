// The prefix index and the allocator around it: what is found, what is shared, what is evicted.
#include "scheduler/core/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"
#include "scheduler/core/kv_allocator.h"
#include "tests/sim/model.h"

namespace fathom::scheduler {
namespace {

using Tokens = std::vector<TokenId>;

std::vector<uint64_t> HashesOf(const std::string& scope, const SequenceTokens& tokens,
                               int32_t block_tokens) {
  std::vector<uint64_t> hashes;
  ExtendHashes(scope, tokens, block_tokens, &hashes);
  return hashes;
}

TEST(PrefixIndex, HashesDoNotDependOnWhereThePromptEndsOrOnHowTheyAreMade) {
  Tokens all;
  for (int32_t i = 0; i < 24; ++i) all.push_back(i * 7 % 5);
  const auto whole = HashesOf("scope", {all, {}}, 4);
  ASSERT_EQ(whole.size(), 6u);
  for (size_t cut = 0; cut <= all.size(); ++cut) {
    const std::span<const TokenId> span = all;
    const SequenceTokens parts{span.first(cut), span.subspan(cut)};
    EXPECT_EQ(HashesOf("scope", parts, 4), whole) << cut;
    std::vector<uint64_t> grown;
    ExtendHashes("scope", {span.first(cut), {}}, 4, &grown);
    EXPECT_EQ(grown.size(), cut / 4);
    ExtendHashes("scope", parts, 4, &grown);
    EXPECT_EQ(grown, whole) << cut;
  }
  EXPECT_NE(HashesOf("other", {all, {}}, 4).front(), whole.front());
}

// Every entry is written down with all its tokens and its parent.
class NaiveIndex {
 public:
  struct Entry {
    BlockId block;
    BlockId parent;        // As it was; 0: a root.
    uint64_t parent_life;  // Of that block's entry.
    uint64_t life;
    std::string scope;
    Tokens tokens;  // Of the whole prefix.
  };

  std::vector<BlockId> Find(const std::string& scope, const Tokens& tokens, int32_t width) const {
    std::vector<BlockId> blocks;
    BlockId parent;
    uint64_t life = 0;
    for (size_t end = static_cast<size_t>(width); end <= tokens.size();
         end += static_cast<size_t>(width)) {
      const Tokens prefix(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(end));
      const auto it = std::ranges::find_if(entries, [&](const Entry& entry) {
        return entry.scope == scope && entry.tokens == prefix && entry.parent == parent &&
               entry.parent_life == life;
      });
      if (it == entries.end()) break;
      blocks.push_back(parent = it->block);
      life = it->life;
    }
    return blocks;
  }

  std::vector<Entry> entries;
  uint64_t lives = 0;
};

// Few different tokens and short blocks, so that texts and even hashes of buckets often meet.
TEST(PrefixIndex, EqualsTheNaiveModel) {
  const uint64_t seed = sim::TestSeed(3);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  constexpr int32_t kWidth = 2, kBlocks = 40;
  PrefixIndex index(kBlocks + 1, kWidth);
  NaiveIndex naive;
  const auto life_of = [&](BlockId block) {
    const auto it = std::ranges::find(naive.entries, block, &NaiveIndex::Entry::block);
    return it == naive.entries.end() ? 0 : it->life;
  };
  uint64_t hits = 0, erased_parents = 0;
  for (int round = 0; round < 20'000; ++round) {
    const std::string scope = rng() % 3 == 0 ? "a" : "b";
    Tokens tokens(2 + rng() % 12);
    for (TokenId& token : tokens) token = static_cast<TokenId>(rng() % 2);
    const SequenceTokens view{tokens, {}};
    const auto hashes = HashesOf(scope, view, kWidth);
    const auto blocks_max = static_cast<int32_t>(hashes.size());
    const PrefixIndex::Match match = index.Find(scope, view, hashes, blocks_max);
    ASSERT_EQ(match.blocks, naive.Find(scope, tokens, kWidth));
    hits += match.blocks.size();
    // Goes on from the match with blocks that have no entry.
    PrefixIndex::Place at = match.last;
    for (auto i = static_cast<int32_t>(match.blocks.size()); i < blocks_max && rng() % 4 != 0;
         ++i) {
      const BlockId block{1 + static_cast<int32_t>(rng() % kBlocks)};
      if (index.Has(block)) {
        const PrefixIndex::Place before = at;
        index.Erase(block);
        std::erase_if(naive.entries, [&](const auto& entry) { return entry.block == block; });
        if (i > 0 && before.block == block) ++erased_parents;
      }
      bool added = false;
      const PrefixIndex::Place place = index.FindOrAdd(scope, at, view, hashes, i, block, &added);
      if (i > 0 && life_of(at.block) == 0) {
        ASSERT_EQ(place.serial, 0u);  // The parent was erased just now.
        break;
      }
      ASSERT_TRUE(added);
      naive.entries.push_back(
          {block,
           i == 0 ? BlockId{} : at.block,
           i == 0 ? 0 : life_of(at.block),
           ++naive.lives,
           scope,
           {tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>((i + 1) * kWidth)}});
      at = place;
    }
    ASSERT_EQ(index.size(), std::ssize(naive.entries));
    if (round % 64 == 0) {
      ASSERT_EQ(ToString(index.Check()), ToString(absl::OkStatus()));
    }
  }
  EXPECT_GT(hits, 10'000u);
  EXPECT_GT(erased_parents, 10u);
}

// Texts of one hash are told apart by their tokens: here the caller gives equal hashes for all.
TEST(PrefixIndex, TextsOfOneHashDoNotMeetAndABucketStaysShort) {
  PrefixIndex index(101, 1);
  const std::vector<uint64_t> hashes = {42};
  int added_count = 0;
  for (int32_t i = 1; i <= 100; ++i) {
    const Tokens tokens = {i};
    bool added = false;
    const auto place = index.FindOrAdd("", {}, {tokens, {}}, hashes, 0, BlockId{i}, &added);
    EXPECT_EQ(added, place.serial != 0);
    added_count += added ? 1 : 0;
    const auto match = index.Find("", {tokens, {}}, hashes, 1);
    EXPECT_EQ(match.blocks, added ? std::vector<BlockId>{BlockId{i}} : std::vector<BlockId>{});
  }
  EXPECT_EQ(added_count, 32);
  EXPECT_EQ(ToString(index.Check()), ToString(absl::OkStatus()));
}

// A toy kind of state that exists only at the ends of some blocks, as that of a recurrent layer.
TEST(PrefixIndex, AModelOfSeveralKindsOfStateContinuesOnlyWhereAllAreThere) {
  constexpr StateKinds kToyState = 2;
  PrefixIndex index(9, 2);
  const Tokens tokens = {1, 2, 3, 4, 5, 6, 7, 8};
  const SequenceTokens view{tokens, {}};
  const auto hashes = HashesOf("", view, 2);
  PrefixIndex::Place at;
  bool added = false;
  for (int32_t i = 0; i < 4; ++i) {
    at = index.FindOrAdd("", at, view, hashes, i, BlockId{i + 1}, &added);
    ASSERT_TRUE(added);
  }
  constexpr StateKinds kBoth = kTokenState | kToyState;
  EXPECT_EQ(index.Find("", view, hashes, 4).blocks.size(), 4u);
  EXPECT_TRUE(index.Find("", view, hashes, 4, kBoth).blocks.empty());
  index.AddKinds(BlockId{2}, kToyState);
  index.AddKinds(BlockId{3}, kToyState);
  const auto match = index.Find("", view, hashes, 4, kBoth);
  EXPECT_EQ(match.blocks, (std::vector<BlockId>{{1}, {2}, {3}}));
  EXPECT_EQ(match.last.block, BlockId{3});
  EXPECT_EQ(index.Find("", view, hashes, 2, kBoth).blocks.size(), 2u);
  index.Erase(BlockId{3});  // What it knew of the block is gone with the entry.
  EXPECT_EQ(index.Find("", view, hashes, 4, kBoth).blocks.size(), 2u);
  EXPECT_EQ(index.Find("", view, hashes, 4).blocks.size(), 2u);
}

// ---- The allocator

constexpr int32_t kWidth = 4;

struct Text {
  Text(std::string scope_of, Tokens tokens_of)
      : scope(std::move(scope_of)), tokens(std::move(tokens_of)) {
    hashes = HashesOf(scope, {tokens, {}}, kWidth);
  }
  PrefixQuery Query() const {
    return {scope, {tokens, {}}, hashes, static_cast<int32_t>(tokens.size()) - 1};
  }
  int32_t size() const { return static_cast<int32_t>(tokens.size()); }
  std::string scope;
  Tokens tokens;
  std::vector<uint64_t> hashes;
};

// Computes a text and leaves its blocks to others. Returns them.
std::vector<BlockId> Leave(KvAllocator& kv, const Text& text) {
  const PrefixQuery query = text.Query();
  auto reservation = kv.Reserve(text.size(), &query);
  FATHOM_CHECK(reservation.has_value());
  kv.Index(query, reservation->blocks, text.size(), &reservation->indexed_blocks,
           &reservation->indexed_at);
  kv.Release(reservation->blocks);
  return reservation->blocks;
}

Tokens Count(int32_t from, int32_t count) {
  Tokens tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(from + i);
  return tokens;
}

TEST(KvAllocator, AHitNeverCoversTheLastToken) {
  for (int32_t tokens = 1; tokens <= 20; ++tokens) {
    KvAllocator kv(20, kWidth);
    const Text text("", Count(0, tokens));
    Leave(kv, text);
    EXPECT_EQ(kv.CachedTokens(text.Query()), (tokens - 1) / kWidth * kWidth) << tokens;
    const Text longer("", Count(0, tokens + 1));
    EXPECT_EQ(kv.CachedTokens(longer.Query()), tokens / kWidth * kWidth);
    const Text of_another("x", Count(0, tokens + 1));
    EXPECT_EQ(kv.CachedTokens(of_another.Query()), 0);
  }
}

TEST(KvAllocator, TheBlocksUsedLongestAgoAreEvictedFirstAndTheEndOfATextBeforeItsBegin) {
  KvAllocator kv(10, kWidth);  // 9 blocks.
  const Text a("", Count(0, 13)), b("", Count(100, 9)), c("", Count(200, 5));
  Leave(kv, a);  // 3 full blocks and one with a token.
  Leave(kv, b);  // 2 full ones.
  const PrefixQuery again = a.Query();
  EXPECT_EQ(kv.CachedTokens(again), 12);
  Leave(kv, a);  // Used again, so that b is the oldest.
  EXPECT_EQ(kv.pool().free_blocks(), 9);
  EXPECT_EQ(kv.pool().idle_blocks(), 5);
  std::vector<BlockId> taken;
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(kv.Grow(&taken));
  EXPECT_EQ(kv.evictions_total(), 0u);
  const int32_t left_of_b[] = {4, 0}, left_of_a[] = {8, 4, 0};
  for (const int32_t left : left_of_b) {
    ASSERT_TRUE(kv.Grow(&taken));
    EXPECT_EQ(kv.CachedTokens(b.Query()), left);
    EXPECT_EQ(kv.CachedTokens(a.Query()), 12);
  }
  for (const int32_t left : left_of_a) {
    ASSERT_TRUE(kv.Grow(&taken));
    EXPECT_EQ(kv.CachedTokens(a.Query()), left);
  }
  EXPECT_FALSE(kv.Grow(&taken));
  EXPECT_EQ(kv.evictions_total(), 5u);
  EXPECT_EQ(ToString(kv.Check()), ToString(absl::OkStatus()));
}

TEST(KvAllocator, ABlockInUseIsSharedWithoutAFreeOne) {
  KvAllocator kv(6, kWidth);  // 5 blocks.
  const Text text("", Count(0, 17));
  const PrefixQuery query = text.Query();
  auto first = kv.Reserve(17, &query);  // Takes all 5.
  ASSERT_TRUE(first.has_value());
  EXPECT_FALSE(kv.HasRoomFor(9, &query));
  kv.Index(query, first->blocks, 16, &first->indexed_blocks, &first->indexed_at);
  const Text part("", Count(0, 9));
  const PrefixQuery part_query = part.Query();
  EXPECT_FALSE(kv.HasRoomFor(9, &part_query));  // Two blocks are shared, the third is not there.
  const std::vector<BlockId> last = {first->blocks.back()};
  kv.Release(last);
  first->blocks.pop_back();
  EXPECT_TRUE(kv.HasRoomFor(9, &part_query));
  EXPECT_FALSE(kv.HasRoomFor(9));
  const auto second = kv.Reserve(9, &part_query);
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->computed_tokens, 8);
  EXPECT_EQ(kv.pool().references(second->blocks[0]), 2);
  EXPECT_EQ(second->blocks[2], last[0]);
  EXPECT_FALSE(kv.Reserve(9, &part_query).has_value());
  EXPECT_EQ(kv.pool().references(second->blocks[0]), 2);  // The failure left nothing behind.
}

TEST(KvAllocator, WhatIsDroppedIsNotFoundNorWhatFollowsIt) {
  KvAllocator kv(20, kWidth);
  const Text text("", Count(0, 17));
  const std::vector<BlockId> blocks = Leave(kv, text);
  kv.Drop(std::vector<BlockId>{blocks[1]});
  EXPECT_EQ(kv.CachedTokens(text.Query()), 4);
  EXPECT_EQ(kv.pool().free_blocks(), 19);
  Leave(kv, text);  // Computed again, it is found again.
  EXPECT_EQ(kv.CachedTokens(text.Query()), 16);
  EXPECT_EQ(ToString(kv.Check()), ToString(absl::OkStatus()));
}

TEST(KvAllocator, AForkSharesWholeBlocksAndCopiesTheNextOne) {
  for (int32_t shared = 1; shared <= 12; ++shared) {
    KvAllocator kv(20, kWidth);
    const auto source = kv.Reserve(13);
    const auto fork = kv.Fork(13, source->blocks, shared);
    ASSERT_TRUE(fork.has_value());
    EXPECT_EQ(fork->computed_tokens, shared);
    EXPECT_EQ(fork->blocks.size(), 4u);
    const auto whole = static_cast<size_t>(shared / kWidth);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(fork->blocks[i] == source->blocks[i], i < whole);
    }
    ASSERT_EQ(fork->copies.size(), shared % kWidth == 0 ? 0u : 1u);
    if (fork->copies.empty()) continue;
    EXPECT_EQ(fork->copies[0].from, source->blocks[whole]);
    EXPECT_EQ(fork->copies[0].to, fork->blocks[whole]);
  }
}

// Sequences that begin, grow, end, fault and are preempted in a pool that is too small for all.
// Each block has the text that was written to it; what a hit gives must be the sequence's text, and
// a block that is shared is never written.
class PoolWorld {
 public:
  explicit PoolWorld(uint64_t seed) : rng_(seed) {}

  void Begin() {
    Running running;
    running.scope = Draw(4) == 0 ? "other" : "";
    running.tokens.resize(1 + Draw(30));
    for (TokenId& token : running.tokens) token = static_cast<TokenId>(Draw(2) * Draw(2));
    const PrefixQuery query = QueryOf(running);
    const PrefixQuery* asked = Draw(8) != 0 ? &query : nullptr;
    const auto tokens = static_cast<int32_t>(running.tokens.size());
    const bool room = kv.HasRoomFor(tokens, asked);
    auto reservation = kv.Reserve(tokens, asked);
    ASSERT_EQ(reservation.has_value(), room);
    if (!room) return void(++full);
    running.kv = *std::move(reservation);
    running.computed = static_cast<size_t>(running.kv.computed_tokens);
    for (size_t i = 0; i < running.computed; ++i) {
      ASSERT_EQ(written_[running.kv.blocks[i / kWidth]][i % kWidth], running.tokens[i]);
    }
    hits += running.computed;
    Compute(running);
    all_.push_back(std::move(running));
  }

  // A clean result; then a token more, if there is room.
  void Grow() {
    Running& running = all_[Draw(all_.size())];
    kv.Index(QueryOf(running), running.kv.blocks, static_cast<int32_t>(running.computed),
             &running.kv.indexed_blocks, &running.kv.indexed_at);
    const auto tokens = static_cast<int32_t>(running.tokens.size()) + 1;
    if (!kv.Holds(running.kv.blocks, tokens) && !kv.Grow(&running.kv.blocks)) return;
    running.tokens.push_back(static_cast<TokenId>(Draw(2)));
    Compute(running);
  }

  void End(bool fault) {
    std::swap(all_[Draw(all_.size())], all_.back());
    if (fault) kv.Drop(all_.back().kv.blocks);
    kv.Release(all_.back().kv.blocks);
    all_.pop_back();
  }

  uint64_t Draw(uint64_t below) { return rng_() % below; }
  bool empty() const { return all_.empty(); }

  static constexpr int32_t kBlocks = 30;
  KvAllocator kv{kBlocks + 1, kWidth};
  uint64_t hits = 0, full = 0;

 private:
  struct Running {
    std::string scope;
    Tokens tokens;
    std::vector<uint64_t> hashes;
    KvReservation kv;
    size_t computed = 0;
  };

  PrefixQuery QueryOf(Running& running) {
    ExtendHashes(running.scope, {running.tokens, {}}, kWidth, &running.hashes);
    const auto tokens = static_cast<int32_t>(running.tokens.size());
    return {running.scope, {running.tokens, {}}, running.hashes, tokens - 1};
  }
  void Compute(Running& running) {
    for (size_t& at = running.computed; at < running.tokens.size(); ++at) {
      const BlockId block = running.kv.blocks[at / kWidth];
      ASSERT_EQ(kv.pool().references(block), 1);
      Tokens& cells = written_[block];
      cells.resize(kWidth);
      cells[at % kWidth] = running.tokens[at];
    }
  }

  std::mt19937_64 rng_;
  std::map<BlockId, Tokens> written_;
  std::vector<Running> all_;
};

TEST(KvAllocator, WhateverHappensAHitHasTheTextAndASharedBlockIsNeverWritten) {
  const uint64_t seed = sim::TestSeed(5);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  PoolWorld world(seed);
  for (int round = 0; round < 30'000; ++round) {
    const uint64_t action = world.Draw(10);
    if (world.empty() || action < 3) {
      world.Begin();
    } else if (action < 6) {
      world.Grow();
    } else {
      world.End(action == 6);
    }
    if (testing::Test::HasFatalFailure()) return;
    if (round % 16 == 0) {
      ASSERT_EQ(ToString(world.kv.Check()), ToString(absl::OkStatus()));
    }
  }
  EXPECT_GT(world.hits, 10'000u);
  EXPECT_GT(world.full, 100u);
  EXPECT_GT(world.kv.evictions_total(), 1'000u);
  while (!world.empty()) world.End(false);
  EXPECT_EQ(world.kv.pool().free_blocks(), PoolWorld::kBlocks);
}

}  // namespace
}  // namespace fathom::scheduler
