// cli/verify/verify_rules.h: the rules by which an answer equals the recorded one. Pure.
// The CPU rule: rendered text, prompt ids and output ids are equal; each log-probability is within
// 2e-3 of the recorded one (the recorder added in another order, so bits cannot be compared).
// The CUDA rule, for 16-bit activations: rendered text and prompt ids are equal; output ids are
// equal up to the first near tie (a position where the recorder's two best tokens are at most 0.15
// apart). Then the recorded ids are scored as a prompt: at each position without a near tie the
// recorded token is the best; the log-probability of each output is within 0.25; over a file, the
// differences of outputs are at most 0.03 on average, those of prompts at most 0.08.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/verify/golden.h"
#include "client/types.h"

namespace fathom::client {

inline constexpr double kCpuLogprobTolerance = 2e-3;
inline constexpr double kCudaNearTie = 0.15;
inline constexpr double kCudaLogprobTolerance = 0.25;
inline constexpr double kCudaOutputMeanMax = 0.03;
inline constexpr double kCudaPromptMeanMax = 0.08;

enum class VerifyRule { kCpu, kCuda };
const char* NameOf(VerifyRule rule);  // "cpu", "cuda".
// Chooses the rule by the device that the cluster reports.
VerifyRule RuleFor(const Model& model);

// The cluster's answers for one golden. Parts that were not asked for are absent.
struct Replay {
  std::optional<TokenizeResult> tokenized;  // For the conversation or the prompt.
  std::optional<std::string> decoded;  // Detokenize(recorded output ids) without special tokens.
  Answer answer;
  std::optional<PromptLogprobs> scored;  // The answer to ScoreRequest.
};

// Distances of log-probabilities from the recorded ones.
struct Distances {
  double max = 0;
  double sum = 0;
  int64_t count = 0;

  void Add(double distance) { Add({distance, distance, 1}); }
  void Add(const Distances& other) {
    max = std::max(max, other.max);
    sum += other.sum;
    count += other.count;
  }
  double mean() const { return count == 0 ? 0 : sum / static_cast<double>(count); }
};

struct Comparison {
  std::vector<std::string> differences;  // Empty: passed. Each is a line for people.
  bool ids_equal = false;                // All output ids of the free run are equal.
  Distances outputs;                     // Of the recorded tokens.
  Distances prompts;
  Distances alternatives;  // Of the best tokens of each position; CPU rule only.
};

Comparison CompareCpu(const Golden& golden, const Replay& replay);
// The part of the CUDA rule for one golden; CheckMeansCuda is the rest.
Comparison CompareCuda(const Golden& golden, const Replay& replay);

// Checks the sums over the goldens of one file. Returns a line for each broken bound.
std::vector<std::string> CheckMeansCuda(const Distances& outputs, const Distances& prompts);

// The request that replays a golden: greedy, with as many tokens as recorded, and with the
// log-probabilities that were recorded. If the last token is one of the model's end tokens, 8 more
// tokens are allowed, because the sequence must end there by itself.
RequestOptions ReplayOptions(const Golden& golden, std::span<const TokenId> end_token_ids);

// The request that scores a golden's prompt and outputs as one prompt, with the best token of each
// position.
GenerateRequest ScoreRequest(const Golden& golden);

}  // namespace fathom::client
