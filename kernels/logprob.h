// kernels/logprob.h: log-probabilities of one row by its raw logits: z[id] - (max + log(sum exp(z -
// max))). The sum has 16 lanes by id within each rank's slice of the vocabulary, slices in rank
// order.
#pragma once

#include <cstdint>
#include <span>

namespace fathom::kernels {

struct LogprobArgs {
  std::span<const float> logits;  // [vocab], finite.
  int32_t slices = 1;             // Ranks that share the vocabulary: each has
  // ceil(vocab / slices), the last what is left.
  int32_t id = 0;  // The token asked for.
  // The best by (logit descending, id ascending). REQUIRES: equal sizes, at most the vocabulary.
  std::span<int32_t> top_ids;
  std::span<float> top_logprobs;
};

// The log-probability of `id`; fills top_ids and top_logprobs.
float LogprobRef(const LogprobArgs& args);
float LogprobCpu(const LogprobArgs& args);

}  // namespace fathom::kernels
