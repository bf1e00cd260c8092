// worker/engine/slots.h: the sequences that the group computes, as the plans (cluster/plan.h)
// describe them: for each slot its tokens, its block table, its request, and the step that samples
// its last token. For a sampled token a slot has only a placeholder: the device keeps the token and
// feeds it to the next step (worker/engine/device.h). In a group that speculates
// (EngineLimits::draft_max) the engine puts the token in its place when it has collected the step:
// drafts follow from the tokens.
// Thread: not thread-safe; the engine thread owns it. A new epoch starts with a new Slots. Errors:
// a Status means that the whole plan is wrong and the epoch must end. An error of one sequence only
// is stored as the `fault` of its slot until the slot is released.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cluster/plan.h"
#include "common/engine_limits.h"
#include "common/status.h"
#include "common/types.h"
#include "kernels/thinking.h"

namespace fathom::worker {

struct Slot {
  bool taken = false;
  uint32_t admission = 0;       // Number of this stay of a sequence in a slot, from 1.
  int32_t admitted_tokens = 0;  // computed_tokens at the admission.
  bool more = false;            // A later plan has more ids for the slot.
  Request request;
  std::string grammar_digest;  // Of the grammar that the sequence follows; empty: none.
  uint64_t seed = 0;
  int32_t sequence = 0;
  int32_t prompt_tokens = 0;
  std::vector<TokenId> ids;      // The admitted ids, then one placeholder for each sample.
  int32_t known_tokens = 0;      // The first `known_tokens` ids are no placeholders.
  bool drafts = false;           // A row with drafts is not collected yet: the length is not known.
  std::vector<TokenId> end_ids;  // End and stop tokens, which are masked before min_tokens.
  // The thinking budget, with the state behind the first `known_tokens` ids.
  kernels::ThinkingSlot thinking;
  int32_t computed_tokens = 0;  // The number of ids whose keys and values are in the blocks.
  std::vector<BlockId> blocks;
  std::optional<StepId> sampled_by;  // The last step that was to sample for the slot.
  std::optional<StepId> last_step;   // The last step with a chunk of this slot.
  RowFault fault = RowFault::kNone;

  int32_t length() const { return static_cast<int32_t>(ids.size()); }
  // Index of the next token to be generated.
  int32_t position() const { return length() > prompt_tokens ? length() - prompt_tokens : 0; }
  bool penalized() const;
  // The next tokens may be forced by the thinking budget, so a row of the slot has no drafts.
  bool thinks() const { return thinking.state != kernels::kThinkingOver; }
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
  bool guided = false;    // Whether the sequence follows a grammar; it has no drafts then.
  // A decode row with drafts computes its token and then these, at the positions that follow, and
  // samples after each of them; `count` includes them. Draft i is kept if it is the sample before
  // it, and all drafts before it are kept.
  std::vector<TokenId> drafts = {};
  RowFault fault = RowFault::kNone;
  // The place of the chunk in the batch of the step (worker/engine/device.h).
  int32_t first_row = 0;
  int32_t first_output = 0;

  int32_t end() const { return start + count; }
  // Whether each of its rows is one token of a sequence that generates, or might be.
  bool decodes() const { return count == 1 || !drafts.empty(); }
  // Rows that are sampled from: the last ones.
  int32_t samples() const {
    return sample && fault == RowFault::kNone ? 1 + static_cast<int32_t>(drafts.size()) : 0;
  }
  // The number of rows with logits; 0 if the chunk has a fault.
  int32_t outputs() const { return scores + samples(); }
  // The index of the output that the token at position `at` gives, in the batch; -1 if its row
  // needs no logits.
  int32_t OutputAt(int32_t at) const {
    const int32_t sampled = at - (end() - samples());
    if (sampled >= 0) return first_output + scores + sampled;
    return at - start < scores ? first_output + at - start : -1;
  }
  // The token at position `at`. REQUIRES: it is not the device's (`fed`), and Submit has not
  // returned.
  TokenId TokenAt(int32_t at) const {
    if (at > start && !drafts.empty()) return drafts[static_cast<size_t>(at - start - 1)];
    return slot->ids[static_cast<size_t>(at)];
  }
};

// A decode row that may have drafts. `slot` has all tokens of its sequence, none is a placeholder;
// slot->ids.back() is the token that the row computes.
struct DraftWork {
  SlotId id;
  const Slot* slot = nullptr;
  int32_t draft_max = 0;
  std::vector<TokenId> drafts = {};  // Receives at most draft_max tokens of the vocabulary.
};

// The samples of a chunk, as its result has them; none if it has a fault.
struct LearnedSamples {
  SlotId id;
  uint32_t admission = 0;  // Slot::admission.
  int32_t at = 0;          // The index of ids[0] in Slot::ids.
  bool drafts = false;
  std::vector<TokenId> ids;
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

  // The row with drafts that the chunk may have: nullopt if the chunk is no decode row, or if the
  // plan grants none or the slot has no room for any. REQUIRES: Learn was called with the samples
  // of all steps before the one that feeds the row.
  std::optional<DraftWork> DraftsOf(const Chunk& chunk) const;

  // Checks chunk `chunk` of step `step`, marks its tokens as computed, and appends the placeholder
  // of its sample. `drafts`: of a decode row; at most as many as DraftsOf allows.
  absl::StatusOr<ChunkWork> Begin(StepId step, const Chunk& chunk,
                                  std::vector<TokenId> drafts = {});

  // Puts samples in their places. Those of a sequence that has left its slot are ignored.
  void Learn(const LearnedSamples& samples);

  // REQUIRES: 0 < id <= limits.slots.
  const Slot& slot(SlotId id) const { return slots_[static_cast<size_t>(id.value)]; }

 private:
  absl::StatusOr<Slot*> Taken(SlotId id, const char* what);
  absl::Status AppendIds(const fathom::Admit& admit, Slot* slot) const;
  absl::Status CheckChunk(StepId step, const Chunk& chunk, const Slot& slot, ChunkWork* work) const;
  bool InVocabulary(const Request& request) const;
  // Takes a known id, at the index of the sequence, into the state of the thinking budget.
  static void NoteThinking(TokenId id, int32_t index, Slot* slot);

  const EngineLimits limits_;
  std::vector<Slot> slots_;  // [slots + 1]; slot 0 is padding.
  uint32_t admissions_ = 0;
};

}  // namespace fathom::worker
