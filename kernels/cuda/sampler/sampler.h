// kernels/cuda/sampler/sampler.h: draws the next token of each row and computes its
// log-probabilities on the device. The sampler uses the formulas of kernels/canon.h on every
// device, so equal logits give the same token as SampleRef (kernels/sample.h). Sums for
// log-probabilities have 1,024 lanes (docs/NUMERICS.md). The parameters of a slot stay on the
// device while a sequence has the slot. On sm_90 `Sample` runs the cluster kernel, which holds a
// row in the shared memory of a cluster of thread blocks; otherwise the generic kernel (sm_80 and
// later), with one thread block for each row. Both give the same bits. Both need vocab <= 262,144.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"
#include "kernels/sampler_params.h"
#include "kernels/thinking.h"

namespace fathom::kernels::cuda {

inline constexpr int kLogprobsMax = 20;  // Alternatives of one token.

// The sampling parameters of a slot. They are written once, when a sequence is admitted to the
// slot.
struct SamplerSlot {
  uint64_t seed = 0;
  int32_t sequence = 0;
  SamplerParams params;
  int32_t min_tokens = 0;
  int32_t bias_begin = 0;  // First index into bias_ids and bias_values.
  int32_t bias_count = 0;
  int32_t end_begin = 0;  // First index into end_ids, which are masked while position < min_tokens.
  uint16_t end_count = 0;
  uint16_t penalized = 0;  // 1: `seen` is maintained for the slot.
};

// The target of a row after a draft (speculative decoding). It samples, and changes nothing of its
// slot: neither its token, nor its faults, nor what it has seen, because the draft may be wrong.
inline constexpr int kTargetDrafted = -2;

// A row that samples, or a prompt row that is scored. REQUIRES: at most one sampling row of a slot
// in a launch, besides those of kTargetDrafted, which need a slot without penalties; slot,
// fault_row and logits_row are in range.
struct SampleRow {
  int32_t logits_row = 0;
  int32_t fault_row = 0;  // The row of the forward pass whose fault word belongs to this row.
  int32_t slot = 0;
  int32_t position = 0;  // Of the token to draw, counted from the first generated token.
  // >= 0: nothing is drawn; the log-probability of this id is computed. -1 or kTargetDrafted:
  // draws.
  int32_t target = -1;
  int32_t logprobs = -1;  // -1: none; else the number of alternatives, at most kLogprobsMax.
  int32_t mask = -1;      // The row's mask in SamplerArgs::masks (guided output); -1: none.
};

// A row faults if a logit is not finite, if its fault word or the slot's fault word is set, if no
// token is left (all scores are -inf), or if its target is no id. Then the slot's fault word gets
// the bits, and a sampling row writes id 0 to slot_tokens (both not with kTargetDrafted).
struct SampleOut {
  int32_t token = -1;  // The sample, or the target.
  int32_t fault = 0;   // FaultBits; then token is -1.
  float logprob = 0;   // The log-probability of `token` by the raw logits, if asked for.
  // The alternatives that were asked for, ordered by (logit descending, id ascending), if there is
  // no fault. Other entries are not written.
  int32_t top_ids[kLogprobsMax];
  float top_logprobs[kLogprobsMax];
};

// The logits of a step's rows, read only. In a tensor-parallel group rank r computes the ids
// [r * width, (r + 1) * width) of every row, and a kernel reads the other ranks' slices in their
// memory.
inline constexpr int kLogitsSlicesMax = 8;
struct LogitsSlices {
  const float* slices[kLogitsSlicesMax] = {};  // [.][stride] each.
  int width = 0;                               // 0: slices[0] has all ids.
  int stride = 0;  // Floats from a row of a slice to the next one; 0: width, or the vocabulary.
};

struct SamplerArgs {
  LogitsSlices logits;                 // Only the first `vocab` ids of a row are read.
  const SampleRow* rows = nullptr;     // [count]; logits_row < 0 is padding and does nothing.
  const SamplerSlot* slots = nullptr;  // [slots]
  const int32_t* bias_ids = nullptr;   // For each slot: ascending ids, each once.
  const float* bias_values = nullptr;
  const int32_t* end_ids = nullptr;
  // [masks][ceil(vocab / 32)]. Bit i % 32 of word i / 32 is 0 if id i is masked.
  const uint32_t* masks = nullptr;
  // [slots][vocab]. Bit 15: the id is in the prompt or the output. Bits 0 to 14: its count in the
  // output (saturating).
  uint16_t* seen = nullptr;
  int32_t* slot_tokens = nullptr;  // [slots]: receives the sample, for the next step's embedding.
  int32_t* slot_faults = nullptr;  // [slots]: stays set; later rows of a faulted slot fault too.
  // [slots]: budgets of reasoning, whose states the sampler keeps; null: there are none. A row of
  // kTargetDrafted needs a slot whose reasoning is over.
  ThinkingSlot* slot_thinking = nullptr;
  const int32_t* faults = nullptr;  // [rows of the forward pass]
  SampleOut* out = nullptr;         // [count]; device memory, or pinned and mapped memory.
  int count = 0;
  // The launch does rows first_row, first_row + row_step, ... The ranks of a group share the rows,
  // so that each row is sampled once; ApplySamples gives the results to the other ranks.
  int first_row = 0;
  int row_step = 1;
  int slots_count = 0;
  int vocab = 0;
};
cudaError_t Sample(const LaunchContext& context, const SamplerArgs& args);
cudaError_t SampleCluster(const LaunchContext& context, const SamplerArgs& args);
cudaError_t SampleGeneric(const LaunchContext& context, const SamplerArgs& args);

// Takes the results of the rows that other ranks have sampled: copies them to `out` and changes the
// slots as the sampler does (slot_tokens, slot_faults, seen). Row i was sampled by rank i % ranks,
// whose `out` is outs[i % ranks]. REQUIRES: that rank's sampler has ended.
struct ApplySamplesArgs {
  const SampleOut* outs[kLogitsSlicesMax] = {};  // outs[rank] is not read.
  int ranks = 1;
  int rank = 0;
  const SampleRow* rows = nullptr;     // [count]
  const SamplerSlot* slots = nullptr;  // [slots]
  uint16_t* seen = nullptr;            // [slots][vocab]
  int32_t* slot_tokens = nullptr;
  int32_t* slot_faults = nullptr;
  ThinkingSlot* slot_thinking = nullptr;  // [slots], or null.
  SampleOut* out = nullptr;               // [count]
  int count = 0;
  int vocab = 0;
};
cudaError_t ApplySamples(const LaunchContext& context, const ApplySamplesArgs& args);

// Marks ids [0, prompt_tokens) as prompt and counts the others as output in seen[slot], after
// clearing it. `ids` is on the device.
struct SeenArgs {
  const int32_t* ids = nullptr;
  int count = 0;
  int prompt_tokens = 0;
  int slot = 0;
  int vocab = 0;
  bool clear = true;  // False: these ids continue an earlier call.
  uint16_t* seen = nullptr;
};
cudaError_t MarkSeen(const LaunchContext& context, const SeenArgs& args);

}  // namespace fathom::kernels::cuda
