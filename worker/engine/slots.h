// worker/engine/slots.h: the sequences that the group computes, as the plans (cluster/plan.h)
// describe them: for each slot its tokens, its block table, its request, and the step that samples
// its last token. For a sampled token a slot has only a placeholder: the device keeps the token and
// feeds it to the next step (worker/engine/device.h).
// Thread: not thread-safe; the engine thread owns it. A new epoch starts with a new Slots. Errors:
// a Status means that the whole plan is wrong and the epoch must end. An error of one sequence only
// is stored as the `fault` of its slot until the slot is released.
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
  uint32_t admission = 0;       // Number of this stay of a sequence in a slot, from 1.
  int32_t admitted_tokens = 0;  // computed_tokens at the admission.
  bool more = false;            // A later plan has more ids for the slot.
  Request request;
  uint64_t seed = 0;
  int32_t sequence = 0;
  int32_t prompt_tokens = 0;
  std::vector<TokenId> ids;      // The admitted ids, then one placeholder for each sample.
  std::vector<TokenId> end_ids;  // End and stop tokens, which are masked before min_tokens.
  int32_t computed_tokens = 0;   // The number of ids whose keys and values are in the blocks.
  std::vector<BlockId> blocks;
  std::optional<StepId> sampled_by;  // The last step that was to sample for the slot.
  std::optional<StepId> last_step;   // The last step with a chunk of this slot.
  RowFault fault = RowFault::kNone;

  int32_t length() const { return static_cast<int32_t>(ids.size()); }
  // Index of the next token to be generated.
  int32_t position() const { return length() > prompt_tokens ? length() - prompt_tokens : 0; }
  bool penalized() const;
};

// The work of one chunk after all checks: compute tokens [start, end()) of a slot. If `fault` is
// set, nothing may be computed for the chunk.
struct ChunkWork {
  SlotId id;
  uint32_t admission = 0;       // Of the slot.
  int32_t admitted_tokens = 0;  // Of the slot.
  const Slot* slot = nullptr;   // Valid until Submit returns, unlike the other members.
  int32_t sequence = 0;
  int32_t position = 0;  // Of the token to sample; generated tokens count from 0.
  int32_t start = 0;     // Absolute position of the first token.
  int32_t count = 0;
  int32_t scores = 0;  // The first `scores` rows give the log-probability of the next prompt token.
  bool fed = false;    // Its only token is the slot's last sample, which the device has.
  StepId fed_by;       // If fed: the step of that sample.
  bool sample = false;    // Whether its last row is sampled from; that row is not scored.
  bool logprobs = false;  // Whether the request asks for the log-probability of the sample.
  RowFault fault = RowFault::kNone;
  // The place of the chunk in the batch of the step (worker/engine/device.h).
  int32_t first_row = 0;
  int32_t first_output = 0;

  int32_t end() const { return start + count; }
  // The number of rows with logits; 0 if the chunk has a fault.
  int32_t outputs() const { return scores + (sample && fault == RowFault::kNone ? 1 : 0); }
  // The index of the output that the token at position `at` gives, in the batch; -1 if its row
  // needs no logits.
  int32_t OutputAt(int32_t at) const {
    if (sample && at + 1 == end()) return first_output + scores;
    return at - start < scores ? first_output + at - start : -1;
  }
};

class Slots {
 public:
  // REQUIRES: limits.slots > 0.
  explicit Slots(const EngineLimits& limits);

  // The changes of a plan, to be called in the order of execution. INVALID_ARGUMENT names what is
  // wrong.
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
  uint32_t admissions_ = 0;
};

}  // namespace fathom::worker
