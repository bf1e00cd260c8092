// kernels/sample.h: draws the next token of one row (docs/NUMERICS.md, "Sampler"): bias, masks,
// penalties, temperature, top_k, top_p, min_p, typical_p, then the argmax of z + noise. The noise
// is Philox at (seed, sequence, position, id). The result is a pure function of the arguments and
// is the same on every rank and every instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kernels/sampler_params.h"

namespace fathom::kernels {

// A token of the prompt or of the output so far.
struct SeenToken {
  int32_t id = 0;
  int32_t output_count = 0;  // How often the output has the id; 0: it is in the prompt only.
};

// Working memory. One call uses it at a time; it grows to the vocabulary's size and stays
// allocated.
struct SampleScratch {
  std::vector<float> z;
  std::vector<uint64_t> mass;
  std::vector<int32_t> kept;
};

struct SampleArgs {
  std::span<const float> logits;  // [vocab], no NaN and no +inf.
  SamplerParams params;
  std::span<const std::pair<int32_t, float>> bias;  // Each id at most once.
  std::span<const int32_t> banned;  // Masked: end and stop tokens before min_tokens.
  // Guided output: bit i % 32 of word i / 32 is 0 if token i is masked. Empty: no token is.
  std::span<const uint32_t> mask;
  std::span<const SeenToken> seen;  // Each id once, in any order. Read only if a penalty is on.
  uint64_t seed = 0;
  int32_t sequence = 0;
  int32_t position = 0;  // Position of the token to draw, from 0 in the output.
  SampleScratch* scratch = nullptr;
};

// Returns the token's id, or -1 if every token is masked. REQUIRES: all ids are below the
// vocabulary's size; a mask has a bit for each token; scratch is not null.
int32_t SampleRef(const SampleArgs& args);
int32_t SampleCpu(const SampleArgs& args);

}  // namespace fathom::kernels
