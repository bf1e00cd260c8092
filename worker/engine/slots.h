// worker/engine/slots.h: the sequences seated in a group, as its plans (cluster/plan.h) tell the
// deltas: each slot's tokens, block table and sampling parameters, and which step sampled its last
// token. Thread: not thread-safe; owned by the engine thread. A new epoch starts from a new Slots.
// Errors: a Status means that the plan is wrong as a whole (the epoch must end). What harms one
// sequence only becomes its slot's `fault`, which stays until the slot is released.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "cluster/plan.h"
#include "common/status.h"
#include "common/types.h"
#include "kernels/sample.h"
#include "modeling/layout/engine_limits.h"

namespace fathom::worker {

// The tokens of a sequence, each once, as the sampler's penalties count them.
class SeenTokens {
 public:
  // `id` is the sequence's next token.
  void Add(TokenId id, bool output);
  std::span<const kernels::SeenToken> tokens() const { return tokens_; }

 private:
  std::vector<kernels::SeenToken> tokens_;
  absl::flat_hash_map<TokenId, size_t> index_;  // Into tokens_.
};

struct Slot {
  bool seated = false;
  bool more = false;  // Ids of its admit are still to come.
  Request request;
  uint64_t seed = 0;
  int32_t sequence = 0;
  int32_t prompt_tokens = 0;
  std::vector<TokenId> ids;      // Prompt, then generated.
  SeenTokens seen;               // Of ids, while a penalty is on; else empty.
  std::vector<TokenId> end_ids;  // End and stop tokens: masked before min_tokens.
  int32_t computed_tokens = 0;   // The first so many ids are in the blocks.
  std::vector<BlockId> blocks;
  std::optional<StepId> sampled_by;  // The step that sampled ids.back(), or failed to (fault).
  std::optional<StepId> last_step;   // The last step with a chunk of this slot.
  RowFault fault = RowFault::kNone;

  int32_t length() const { return static_cast<int32_t>(ids.size()); }
  // Index of the next token to be generated.
  int32_t position() const { return length() > prompt_tokens ? length() - prompt_tokens : 0; }
  bool penalized() const;
};

// What one chunk asks of the model, after all checks. `fault` set: nothing may be computed for it.
struct ChunkWork {
  Slot* slot = nullptr;
  int32_t start = 0;  // Absolute position of the first token.
  int32_t count = 0;
  bool sample = false;
  RowFault fault = RowFault::kNone;

  // Valid until the slot changes.
  std::span<const TokenId> ids() const { return std::span(slot->ids).subspan(start, count); }
  int32_t end() const { return start + count; }
  // Prompt tokens whose log-probabilities this chunk's rows give: [first, last), empty when not
  // asked for.
  int32_t prompt_logprobs_first() const { return start + 1; }
  int32_t prompt_logprobs_last() const;
};

class Slots {
 public:
  // REQUIRES: limits.slots > 0.
  explicit Slots(const EngineLimits& limits);

  // The deltas of a plan, in the order of the calls. INVALID_ARGUMENT names what is wrong.
  absl::Status CheckCopy(const BlockCopy& copy) const;
  absl::Status Release(SlotId id);
  absl::Status Seat(const Admit& admit);
  absl::Status Append(const Extend& extend);

  // Checks chunk `chunk` of step `step` and marks its tokens as computed.
  absl::StatusOr<ChunkWork> Begin(StepId step, const Chunk& chunk);

  // The chunk's sampled token; or a fault in its place.
  static void Sampled(StepId step, TokenId token, Slot* slot);
  static void Failed(StepId step, RowFault fault, Slot* slot);

  int32_t seated() const { return seated_; }
  // REQUIRES: 0 < id <= limits.slots.
  const Slot& slot(SlotId id) const { return slots_[static_cast<size_t>(id.value)]; }

 private:
  absl::StatusOr<Slot*> Seated(SlotId id, const char* what);
  absl::Status AppendIds(const Admit& admit, Slot* slot) const;
  bool InVocabulary(const Request& request) const;

  const EngineLimits limits_;
  std::vector<Slot> slots_;  // [slots + 1]; slot 0 is padding.
  int32_t seated_ = 0;
};

}  // namespace fathom::worker
