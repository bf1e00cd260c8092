// kernels/cuda/sampler/sampler.h: the next token of each row and its log-probabilities, on the
// device. The arithmetic of the sampler is kernels/canon.h's on every device: equal logits give the
// token that SampleRef gives (kernels/sample.h), to the bit. Sums for log-probabilities have 1,024
// lanes (docs/NUMERICS.md). A slot's parameters stay on the device while its sequence is seated.
// `Sample` takes the cluster kernel on sm_90, where a row lies in the shared memory of a cluster of
// thread blocks, else the generic one (sm_80 and later), of one thread block a row. The bits are
// the same. vocab <= 262,144 in both.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

inline constexpr int kLogprobsMax = 20;  // Alternatives of one token.

// How a seated sequence is sampled: written once, when it is seated.
struct SamplerSlot {
  uint64_t seed = 0;
  int32_t sequence = 0;
  float temperature = 1;  // Below canon::kTemperatureMin: the best score, without noise.
  float top_p = 1;
  float min_p = 0;
  int32_t top_k = 0;  // 0: off.
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  int32_t min_tokens = 0;
  int32_t bias_begin = 0;  // Into bias_ids and bias_values.
  int32_t bias_count = 0;
  int32_t end_begin = 0;  // Into end_ids: masked while position < min_tokens.
  int32_t end_count = 0;
  int32_t penalized = 0;  // 1: `seen` is kept for it.
};

// A row that samples, or a prompt row that is scored. REQUIRES: one sampling row of a slot in a
// launch; slot, fault_row and logits_row in range.
struct SampleRow {
  int32_t logits_row = 0;
  int32_t fault_row = 0;  // Row of the forward pass whose fault word is this one's.
  int32_t slot = 0;
  int32_t position = 0;   // Of the token to draw, counted from the first generated one.
  int32_t target = -1;    // >= 0: no draw; the log-probability of this id is asked for.
  int32_t logprobs = -1;  // -1: none asked for; else alternatives, at most kLogprobsMax.
};

// A row faults that has a logit which is not finite, whose fault word or whose slot's is set, which
// has no token left (all are -inf) or whose target is no id: its slot's fault word gets the bits,
// and a sampling row leaves id 0 in slot_tokens.
struct SampleOut {
  int32_t token = -1;  // The sample, or the target again.
  int32_t fault = 0;   // FaultBit; token is -1 then.
  float logprob = 0;   // Of token by the raw logits, where asked for.
  // The alternatives that were asked for, by (logit descending, id ascending), if there is no
  // fault; the rest is not written.
  int32_t top_ids[kLogprobsMax];
  float top_logprobs[kLogprobsMax];
};

struct SamplerArgs {
  const float* logits = nullptr;       // [.][stride]; read only, and of each row `vocab` alone.
  const SampleRow* rows = nullptr;     // [count]; logits_row < 0: padding, nothing is done.
  const SamplerSlot* slots = nullptr;  // [slots]
  const int32_t* bias_ids = nullptr;   // A slot's: ascending, each once.
  const float* bias_values = nullptr;
  const int32_t* end_ids = nullptr;
  // [slots][vocab]: bit 15: in prompt or output; bits 0 to 14: count in the output (saturating).
  uint16_t* seen = nullptr;
  int32_t* slot_tokens = nullptr;   // [slots]: the sample goes here, for the next step's gather.
  int32_t* slot_faults = nullptr;   // [slots]: sticky; a faulted slot's later rows fault too.
  const int32_t* faults = nullptr;  // [rows of the forward pass]
  SampleOut* out = nullptr;         // [count]; device memory, or pinned and mapped.
  int count = 0;
  int slots_count = 0;
  int vocab = 0;
  int stride = 0;  // Floats from a row of logits to the next; 0: vocab.
};
cudaError_t Sample(const LaunchContext& context, const SamplerArgs& args);
cudaError_t SampleCluster(const LaunchContext& context, const SamplerArgs& args);
cudaError_t SampleGeneric(const LaunchContext& context, const SamplerArgs& args);

// Marks ids [0, prompt_tokens) as in the prompt and counts the others as output, in seen[slot],
// which is cleared first. `ids` on the device.
struct SeenArgs {
  const int32_t* ids = nullptr;
  int count = 0;
  int prompt_tokens = 0;
  int slot = 0;
  int vocab = 0;
  bool clear = true;  // False: these ids go on where an earlier call ended.
  uint16_t* seen = nullptr;
};
cudaError_t MarkSeen(const LaunchContext& context, const SeenArgs& args);

}  // namespace fathom::kernels::cuda
