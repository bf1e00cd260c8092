#include "scheduler/core/block_pool.h"

#include "common/check.h"

namespace fathom::scheduler {

BlockPool::BlockPool(int32_t blocks) {
  FATHOM_CHECK(blocks >= 1, "a pool of {} blocks", blocks);
  states_.resize(static_cast<size_t>(blocks));
  free_.reserve(static_cast<size_t>(blocks));
  for (int32_t id = blocks - 1; id >= 1; --id) free_.push_back(BlockId{id});
}

std::optional<std::vector<BlockId>> BlockPool::Allocate(int32_t count) {
  FATHOM_CHECK(count >= 0, "count {}", count);
  if (count > bare_blocks()) return std::nullopt;
  std::vector<BlockId> blocks(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - static_cast<size_t>(count));
  for (BlockId block : blocks) At(block).references = 1;
  return blocks;
}

void BlockPool::AddReference(std::span<const BlockId> blocks) {
  for (BlockId block : blocks) {
    State& state = At(block);
    FATHOM_CHECK(state.references > 0 || state.kept, "block {} is free", block.value);
    if (state.references++ == 0) Unlink(block.value);
  }
}

void BlockPool::Release(std::span<const BlockId> blocks) {
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
    State& state = At(*block);
    FATHOM_CHECK(state.references > 0, "block {} is free", block->value);
    if (--state.references > 0) continue;
    if (state.kept) {
      Link(block->value);
    } else {
      free_.push_back(*block);
    }
  }
}

void BlockPool::Keep(BlockId block) {
  State& state = At(block);
  FATHOM_CHECK(state.references > 0 && !state.kept, "block {} has {} references, kept: {}",
               block.value, state.references, state.kept);
  state.kept = true;
}

void BlockPool::Forget(BlockId block) {
  State& state = At(block);
  FATHOM_CHECK(state.kept, "block {} is not kept", block.value);
  state.kept = false;
  if (state.references > 0) return;
  Unlink(block.value);
  free_.push_back(block);
}

BlockId BlockPool::OldestKept() const {
  FATHOM_CHECK(idle_ > 0);
  return BlockId{states_[0].newer};
}

const BlockPool::State& BlockPool::At(BlockId block) const {
  FATHOM_CHECK(block.value >= 1 && block.value <= total_blocks(), "block {} of {}", block.value,
               total_blocks());
  return states_[static_cast<size_t>(block.value)];
}

// Puts a block at the newest end of the ring.
void BlockPool::Link(int32_t block) {
  State& head = states_[0];
  State& state = states_[static_cast<size_t>(block)];
  state.older = head.older;
  state.newer = 0;
  states_[static_cast<size_t>(head.older)].newer = block;
  head.older = block;
  ++idle_;
}

void BlockPool::Unlink(int32_t block) {
  const State& state = states_[static_cast<size_t>(block)];
  states_[static_cast<size_t>(state.older)].newer = state.newer;
  states_[static_cast<size_t>(state.newer)].older = state.older;
  --idle_;
}

absl::Status BlockPool::Check() const {
  int32_t used = 0, idle = 0, linked = 0;
  for (int32_t id = 1; id <= total_blocks(); ++id) {
    const State& state = At(BlockId{id});
    used += state.references > 0 ? 1 : 0;
    idle += state.references == 0 && state.kept ? 1 : 0;
  }
  for (int32_t id = states_[0].newer; id != 0 && linked <= idle; ++linked) {
    const State& state = At(BlockId{id});
    if (!state.kept || state.references > 0) return Internal("block {} is not idle", id);
    if (states_[static_cast<size_t>(state.newer)].older != id) return Internal("a broken ring");
    id = state.newer;
  }
  if (linked != idle || idle != idle_ || used + idle + bare_blocks() != total_blocks()) {
    return Internal("{} blocks used, {} idle ({} linked, {} counted), {} bare of {}", used, idle,
                    linked, idle_, bare_blocks(), total_blocks());
  }
  return absl::OkStatus();
}

}  // namespace fathom::scheduler
