// Moves the KV of preempted sequences to the swap space in the host's memory and back. A plan does
// its copies first, on the stream that computes the steps. So a copy to the swap space reads what
// every earlier plan wrote, and the blocks of the pool may be given away in the same plan.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "scheduler/core/core_impl.h"

namespace fathom::scheduler {

void SchedulerCore::Impl::SwapOut(Group& group, Sequence& sequence) {
  const RunningState& running = *sequence.running();
  const int32_t block_tokens = group.limits.block_tokens;
  // Only KV that a clean sample has attended to may come back, because other sequences may share it
  // then. For a sequence that decodes that is what the record has tokens for when it is admitted
  // again; of a prefill that has not ended, what it was admitted with.
  const int32_t tokens = running.decoding() ? running.planned_tokens : running.clean_tokens;
  const auto blocks = static_cast<size_t>((tokens + block_tokens - 1) / block_tokens);
  // The log-probabilities of a prompt need its prefill. They are complete with the first token.
  const bool scores = sequence.session->record.request.output.prompt_logprobs.has_value() &&
                      sequence.record().ids.empty();
  if (tokens == 0 || scores ||
      !group.swap_cost.SwapIsFaster(static_cast<int32_t>(blocks), tokens)) {
    return;
  }
  std::optional<std::vector<BlockId>> space =
      group.swap_space.Allocate(static_cast<int32_t>(blocks));
  if (!space) return;
  for (size_t i = 0; i < blocks; ++i) {
    group.copies.push_back({CopyOperation::kSwapOut, running.blocks[i], (*space)[i]});
  }
  ++counters_.swaps_total;
  counters_.swapped_out_blocks_total += blocks;
  sequence.swapped = SwappedKv{.group = group.id,
                               .blocks = *std::move(space),
                               .tokens = tokens,
                               .settled_at = group.next_step};
  group.swapped.emplace(sequence.number, &sequence);
}

void SchedulerCore::Impl::SwapIn(const Group& group, Sequence& sequence, RunningState& running,
                                 std::vector<BlockCopy>* copies) {
  if (!sequence.swapped) return;
  const SwappedKv& swapped = *sequence.swapped;
  // The last token is computed in any case, because its logits are needed.
  const int32_t tokens = std::min(swapped.tokens, running.known_tokens - 1);
  if (swapped.group == group.id && tokens > running.planned_tokens) {
    const int32_t block_tokens = group.limits.block_tokens;
    const auto first = static_cast<size_t>(running.planned_tokens / block_tokens);
    const auto end = static_cast<size_t>((tokens + block_tokens - 1) / block_tokens);
    for (size_t i = first; i < end; ++i) {
      copies->push_back({CopyOperation::kSwapIn, swapped.blocks[i], running.blocks[i]});
    }
    counters_.swapped_in_blocks_total += end - first;
    running.planned_tokens = running.reused_tokens = tokens;
  }
  DropSwapped(sequence);
}

// Plans are executed in order, so the space may be used again at once.
void SchedulerCore::Impl::DropSwapped(Sequence& sequence) {
  if (!sequence.swapped) return;
  const SwappedKv swapped = *std::exchange(sequence.swapped, std::nullopt);
  Group& group = *FindGroup(swapped.group);
  group.swap_space.Release(swapped.blocks);
  group.swapped.erase(sequence.number);
}

}  // namespace fathom::scheduler
