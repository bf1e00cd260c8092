// worker/engine/slots.h: the sequences that a group computes, as its plans (cluster/plan.h) tell
// the deltas: each slot's tokens, block table and request, and which step samples its last token. A
// token that is still to be drawn, or was drawn, is a placeholder here: the device keeps it and
// feeds it to the next step (worker/engine/device.h). Thread: not thread-safe; owned by the engine
// thread. A new epoch starts from a new Slots. Errors: a Status means that the plan is wrong as a
// whole (the epoch must end). What harms one sequence only becomes its slot's `fault`, which stays
// until the slot is released.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cluster/plan.h"
#include "common/engine_limits.h"
#include "common/status.h"
#include "common/types.h"

namespace fathom::worker {

struct Slot {
  bool taken = false;
  bool more = false;  // Ids of its admit are still to come.
  Request request;
  uint64_t seed = 0;
  int32_t sequence = 0;
  int32_t prompt_tokens = 0;
  std::vector<TokenId> ids;      // As admitted, then a placeholder for each sample.
  std::vector<TokenId> end_ids;  // End and stop tokens: masked before min_tokens.
  int32_t computed_tokens = 0;   // The first so many ids are in the blocks.
  std::vector<BlockId> blocks;
  std::optional<StepId> sampled_by;  // The step that samples ids.back(), or does not for a fault.
  std::optional<StepId> last_step;   // The last step with a chunk of this slot.
  RowFault fault = RowFault::kNone;

  int32_t length() const { return static_cast<int32_t>(ids.size()); }
  // Index of the next token to be generated.
  int32_t position() const { return length() > prompt_tokens ? length() - prompt_tokens : 0; }
  bool penalized() const;
};

// What one chunk asks of the device, after all checks: to compute tokens [start, end()) of a slot.
// `fault` set: nothing may be computed for it.
struct ChunkWork {
  SlotId id;
  const Slot* slot = nullptr;  // Until the step was submitted; the rest is good until its result.
  int32_t sequence = 0;
  int32_t position = 0;  // Of the token to be drawn, counted from the first generated one.
  int32_t start = 0;     // Absolute position of the first token.
  int32_t count = 0;
  int32_t scores = 0;   // The first so many rows give the log-probability of the next prompt token.
  bool fed = false;     // Its one token is the slot's last sample, which the device has.
  bool sample = false;  // Its last row is sampled from. That row is not scored.
  bool logprobs = false;  // The sample's log-probability is asked for.
  RowFault fault = RowFault::kNone;
  // In the step's batch (worker/engine/device.h).
  int32_t first_row = 0;
  int32_t first_output = 0;

  int32_t end() const { return start + count; }
  // Rows with logits; none where there is a fault.
  int32_t outputs() const { return scores + (sample && fault == RowFault::kNone ? 1 : 0); }
  // Which of the batch's outputs the token at `at` gives; -1: none, its row needs no logits.
  int32_t OutputAt(int32_t at) const {
    if (sample && at + 1 == end()) return first_output + scores;
    return at - start < scores ? first_output + at - start : -1;
  }
};

class Slots {
 public:
  // REQUIRES: limits.slots > 0.
  explicit Slots(const EngineLimits& limits);

  // The deltas of a plan, in the order of the calls. INVALID_ARGUMENT names what is wrong.
  absl::Status CheckCopy(const BlockCopy& copy) const;
  absl::Status Release(SlotId id);
  absl::Status Admit(const fathom::Admit& admit);
  absl::Status Append(const Extend& extend);

  // Checks chunk `chunk` of step `step`, marks its tokens as computed, and appends the placeholder
  // of its sample.
  absl::StatusOr<ChunkWork> Begin(StepId step, const Chunk& chunk);

  // REQUIRES: 0 < id <= limits.slots.
  const Slot& slot(SlotId id) const { return slots_[static_cast<size_t>(id.value)]; }

 private:
  absl::StatusOr<Slot*> Taken(SlotId id, const char* what);
  absl::Status AppendIds(const fathom::Admit& admit, Slot* slot) const;
  absl::Status CheckChunk(StepId step, const Chunk& chunk, const Slot& slot, ChunkWork* work) const;
  bool InVocabulary(const Request& request) const;

  const EngineLimits limits_;
  std::vector<Slot> slots_;  // [slots + 1]; slot 0 is padding.
};

}  // namespace fathom::worker
