// client/verify_rules.h: when an answer is the recorded one. Pure.
// The CPU rule: rendered text, prompt ids and output ids equal; each log-probability within 2e-3 of
// the recorded one (the recorder had another order of sums, so bits cannot be compared).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "client/golden.h"
#include "client/types.h"

namespace fathom::client {

inline constexpr double kCpuLogprobTolerance = 2e-3;

// What the cluster gave for one golden. Parts that were not asked for are absent.
struct Replay {
  std::optional<TokenizeResult> tokenized;  // Of the conversation or the prompt.
  std::optional<std::string> decoded;  // Detokenize(recorded output ids), special tokens left out.
  Answer answer;
};

struct Comparison {
  std::vector<std::string> differences;  // Empty: exact. Each a line for people.
  double logprob_difference_max = 0;
};

Comparison CompareCpu(const Golden& golden, const Replay& replay);

// The request that replays a golden: greedy, as many tokens as recorded (8 more if the last is one
// of the model's end tokens: then it must end there by itself), with the log-probabilities that
// were recorded.
RequestOptions ReplayOptions(const Golden& golden, std::span<const TokenId> end_token_ids);

}  // namespace fathom::client
