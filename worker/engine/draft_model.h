// worker/engine/draft_model.h: a small model that proposes drafts (worker/engine/proposer.h). It
// has the vocabulary of the target and is a device of its own (worker/engine/device.h), on the CPU
// or on a GPU, with one rank: every rank of the target's group runs the whole draft model. Its keys
// and values are in planes of its own under the block ids of the target, so a slot's block table
// serves both models and the scheduler need not know of it.
// A draft is drawn from the draft's logits by the sampler of the target, with the noise of its
// position, so it agrees with a sampled target nearly as often as with a greedy one. Penalties are
// left out.
// Pure: what the draft's blocks hold is computed from the tokens of the slot's own sequence, from
// the first one on, whatever a prefix cache, a copy or a swap did to the target's blocks; and the
// bits of a row do not depend on the batch. So all ranks draft alike.
// Thread: the engine thread, which calls every method of the device.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/engine_limits.h"
#include "common/status.h"
#include "worker/engine/device.h"
#include "worker/engine/proposer.h"

namespace fathom::worker {

class DraftModel final : public Proposer {
 public:
  // `limits`: of the device; its slots and blocks are those of the target. The device outlives the
  // model, and nobody else uses it.
  DraftModel(Device* device, const EngineLimits& limits);

  void Begin() override;
  absl::Status Propose(std::span<DraftWork> rows) override;

 private:
  // What the draft's blocks of a slot hold.
  struct SlotState {
    Slot slot;              // The target's, without penalties; `admission` tells the sequence.
    bool admitted = false;  // The device knows the sequence.
    int32_t computed = 0;   // The first tokens of the sequence.
    std::vector<TokenId> drafts;  // Then these, which may have become tokens of the sequence.
  };
  // A step of the device that was submitted: the rows whose drafts it draws.
  struct Step {
    std::vector<DraftWork*> drawn;
  };

  SlotState& StateOf(const DraftWork& row) { return states_[static_cast<size_t>(row.id.value)]; }
  // Takes the new tokens and blocks of the slot.
  void Follow(const DraftWork& row);
  // Computes the tokens that the blocks lack, and draws the first draft of each row.
  absl::Status CatchUp(std::span<DraftWork*> rows);
  // Appends tokens of the row to the batch that is being made.
  void AddChunk(DraftWork* row, int32_t start, int32_t count, bool fed);
  absl::Status Submit();
  // Waits for the oldest step that is not collected.
  void Collect();

  Device& device_;
  const EngineLimits limits_;
  std::vector<SlotState> states_;  // [slots + 1]
  StepId next_step_;
  StepBatch batch_;
  std::vector<ChunkWork> chunks_;      // Of the batch that is being made.
  std::vector<DraftWork*> of_chunks_;  // The row of each chunk.
  std::vector<Step> in_flight_;
};

}  // namespace fathom::worker
