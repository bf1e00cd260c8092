#include "scheduler/core/block_pool.h"

#include "common/check.h"

namespace fathom::scheduler {

BlockPool::BlockPool(int32_t blocks) {
  FATHOM_CHECK(blocks >= 1, "a pool of {} blocks", blocks);
  references_.assign(static_cast<size_t>(blocks), 0);
  free_.reserve(static_cast<size_t>(blocks));
  for (int32_t id = blocks - 1; id >= 1; --id) free_.push_back(BlockId{id});
}

std::optional<std::vector<BlockId>> BlockPool::Allocate(int32_t count) {
  FATHOM_CHECK(count >= 0, "count {}", count);
  if (count > free_blocks()) return std::nullopt;
  std::vector<BlockId> blocks(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - static_cast<size_t>(count));
  for (BlockId block : blocks) references_[Index(block)] = 1;
  return blocks;
}

void BlockPool::AddReference(std::span<const BlockId> blocks) {
  for (BlockId block : blocks) {
    int32_t& references = references_[Index(block)];
    FATHOM_CHECK(references > 0, "block {} is free", block.value);
    ++references;
  }
}

void BlockPool::Release(std::span<const BlockId> blocks) {
  for (BlockId block : blocks) {
    int32_t& references = references_[Index(block)];
    FATHOM_CHECK(references > 0, "block {} is free", block.value);
    if (--references == 0) free_.push_back(block);
  }
}

size_t BlockPool::Index(BlockId block) const {
  FATHOM_CHECK(block.value >= 1 && block.value <= total_blocks(), "block {} of {}", block.value,
               total_blocks());
  return static_cast<size_t>(block.value);
}

}  // namespace fathom::scheduler
