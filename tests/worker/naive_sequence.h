// tests/worker/naive_sequence.h: the tokens and log-probabilities that a sequence has when it is
// computed alone, with the logits of fake_decoder.h. The tests compare engines with it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "cluster/request.h"
#include "kernels/logprob.h"
#include "kernels/sample.h"
#include "tests/worker/fake_decoder.h"

namespace fathom::worker {

struct Naive {
  Request request;
  uint64_t seed = 0;
  int32_t prompt_tokens = 0;
  std::vector<TokenId> ids;  // Prompt and output so far.
  int32_t sequence = 2;
  std::vector<uint32_t> mask = {};  // Of the next token; empty: none.

  // Whether the thinking budget forces the next token.
  bool ForcesThinkingEnd(std::span<const TokenId> output) const {
    const ThinkingParams& thinking = request.thinking;
    if (thinking.end < 0) return false;
    if (!thinking.opened) {
      if (output.empty() || output.front() != thinking.begin) return false;
      output = output.subspan(1);
    }
    return std::ranges::find(output, thinking.end) == output.end() &&
           std::ssize(output) >= thinking.budget;
  }

  TokenId Next() const {
    const std::vector<float> logits = FakeLogits(ids);
    const auto output = std::span(ids).subspan(static_cast<size_t>(prompt_tokens));
    const auto position = static_cast<int32_t>(output.size());
    if (ForcesThinkingEnd(output)) return request.thinking.end;
    std::vector<kernels::SeenToken> seen;
    for (const TokenId id : std::set<TokenId>(ids.begin(), ids.end())) {
      seen.push_back({id, static_cast<int32_t>(std::count(output.begin(), output.end(), id))});
    }
    std::vector<TokenId> banned = request.stop.end_token_ids;
    banned.insert(banned.end(), request.stop.stop_token_ids.begin(),
                  request.stop.stop_token_ids.end());
    if (position >= request.stop.min_tokens) banned.clear();
    kernels::SampleScratch scratch;
    kernels::SamplerParams params;
    CopySamplingValues(request.sampling, &params);
    return kernels::SampleRef({.logits = logits,
                               .params = params,
                               .bias = request.sampling.logit_bias,
                               .banned = banned,
                               .mask = mask,
                               .seen = seen,
                               .seed = seed,
                               .sequence = sequence,
                               .position = position,
                               .scratch = &scratch});
  }
};

inline float NaiveLogprob(std::span<const TokenId> before, TokenId id) {
  const std::vector<float> logits = FakeLogits(before);
  return kernels::LogprobRef({logits, 1, id, {}, {}});
}

}  // namespace fathom::worker
