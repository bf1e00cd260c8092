#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "scheduler/core/block_pool.h"
#include "scheduler/core/kv_allocator.h"
#include "tests/sim/model.h"

namespace fathom::scheduler {
namespace {

TEST(BlockPool, GivesAllButThePaddingBlockOnce) {
  BlockPool pool(5);
  EXPECT_EQ(pool.total_blocks(), 4);
  const auto blocks = pool.Allocate(4);
  ASSERT_TRUE(blocks.has_value());
  EXPECT_EQ(std::set<BlockId>(blocks->begin(), blocks->end()),
            (std::set<BlockId>{BlockId{1}, BlockId{2}, BlockId{3}, BlockId{4}}));
  EXPECT_FALSE(pool.Allocate(1).has_value());
  EXPECT_TRUE(pool.Allocate(0).has_value());
  pool.Release(*blocks);
  EXPECT_EQ(pool.free_blocks(), 4);
}

TEST(BlockPool, AllOrNothing) {
  BlockPool pool(4);
  EXPECT_FALSE(pool.Allocate(4).has_value());
  EXPECT_EQ(pool.free_blocks(), 3);
}

TEST(BlockPoolDeathTest, DoubleFreeAndPaddingAreOurBugs) {
  BlockPool pool(4);
  const auto blocks = pool.Allocate(1);
  pool.Release(*blocks);
  EXPECT_DEATH(pool.Release(*blocks), "is free");
  EXPECT_DEATH(pool.AddReference(*blocks), "is free");
  const std::vector<BlockId> padding = {BlockId{0}};
  EXPECT_DEATH(pool.Release(padding), "block 0");
}

// Compared with a map of reference counts.
TEST(BlockPool, EqualsTheNaiveModel) {
  const uint64_t seed = sim::TestSeed(1);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  constexpr int32_t kBlocks = 64;
  BlockPool pool(kBlocks + 1);
  std::map<BlockId, int32_t> model;
  std::vector<std::vector<BlockId>> held;
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t action = rng() % 5;
    if (held.empty() || action < 2) {
      const auto count = static_cast<int32_t>(rng() % 80);  // Sometimes more than there are.
      const auto blocks = pool.Allocate(count);
      ASSERT_EQ(blocks.has_value(), count <= kBlocks - static_cast<int32_t>(model.size()));
      if (!blocks) continue;
      for (BlockId block : *blocks) ASSERT_TRUE(model.emplace(block, 1).second) << block.value;
      held.push_back(*blocks);
    } else if (action == 2) {
      const std::vector<BlockId> shared = held[rng() % held.size()];
      pool.AddReference(shared);
      for (BlockId block : shared) ++model[block];
      held.push_back(shared);
    } else {
      std::swap(held[rng() % held.size()], held.back());
      pool.Release(held.back());
      for (BlockId block : held.back()) {
        if (--model[block] == 0) model.erase(block);
      }
      held.pop_back();
    }
    ASSERT_EQ(pool.used_blocks(), static_cast<int32_t>(model.size()));
    for (int32_t id = 1; id <= kBlocks; ++id) {
      const auto it = model.find(BlockId{id});
      ASSERT_EQ(pool.references(BlockId{id}), it == model.end() ? 0 : it->second);
    }
  }
}

// The blocks of a sequence for its tokens, for every block size.
TEST(KvAllocator, BlocksHoldTheTokensAndNoMore) {
  for (const int32_t block_tokens : {1, 3, 16}) {
    for (int32_t tokens = 1; tokens <= 40; ++tokens) {
      SCOPED_TRACE(tokens);
      KvAllocator kv(9, block_tokens);
      const bool fits = tokens <= 8 * block_tokens;
      EXPECT_EQ(kv.HasRoomFor(tokens), fits);
      auto reservation = kv.Reserve(tokens);
      ASSERT_EQ(reservation.has_value(), fits);
      if (!fits) continue;
      std::vector<BlockId>& blocks = reservation->blocks;
      EXPECT_EQ(reservation->computed_tokens, 0);
      EXPECT_TRUE(reservation->copies.empty());
      EXPECT_TRUE(kv.Holds(blocks, tokens));
      const auto held = static_cast<int32_t>(blocks.size());
      EXPECT_FALSE(kv.Holds(blocks, held * block_tokens + 1));
      EXPECT_LT((held - 1) * block_tokens, tokens);
      while (kv.Grow(&blocks)) {
      }
      EXPECT_EQ(blocks.size(), 8u);
      EXPECT_EQ(kv.pool().free_blocks(), 0);
      EXPECT_FALSE(kv.HasRoomFor(1));
      kv.Release(blocks);
      EXPECT_EQ(kv.pool().free_blocks(), 8);
    }
  }
}

}  // namespace
}  // namespace fathom::scheduler
