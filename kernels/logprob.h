// kernels/logprob.h: log-probabilities of one row of raw logits: z[id] - (max + log(sum exp(z -
// max))). The sum uses 16 lanes by id within each rank's slice of the vocabulary, then adds the
// slices in rank order.
#pragma once

#include <cstdint>
#include <span>

namespace fathom::kernels {

struct LogprobArgs {
  std::span<const float> logits;  // [vocab], finite.
  // The number of ranks that share the vocabulary. Each has ceil(vocab / slices) ids; the last rank
  // has the rest.
  int32_t slices = 1;
  int32_t id = 0;  // The token whose log-probability is returned.
  // Receive the best tokens, ordered by (logit descending, id ascending). REQUIRES: equal sizes, at
  // most the vocabulary.
  std::span<int32_t> top_ids;
  std::span<float> top_logprobs;
};

// Returns the log-probability of `id` and fills top_ids and top_logprobs.
float LogprobRef(const LogprobArgs& args);
float LogprobCpu(const LogprobArgs& args);

}  // namespace fathom::kernels
