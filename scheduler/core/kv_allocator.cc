#include "scheduler/core/kv_allocator.h"

#include <utility>

namespace fathom::scheduler {

std::optional<KvReservation> KvAllocator::Reserve(int32_t tokens) {
  std::optional<std::vector<BlockId>> blocks = pool_.Allocate(BlocksFor(tokens));
  if (!blocks) return std::nullopt;
  KvReservation reservation;
  reservation.blocks = *std::move(blocks);
  return reservation;
}

bool KvAllocator::Grow(std::vector<BlockId>* blocks) {
  const std::optional<std::vector<BlockId>> block = pool_.Allocate(1);
  if (!block) return false;
  blocks->push_back(block->front());
  return true;
}

}  // namespace fathom::scheduler
