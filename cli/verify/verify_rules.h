// cli/verify/verify_rules.h: when an answer is the recorded one. Pure.
// The CPU rule: rendered text, prompt ids and output ids equal; each log-probability within 2e-3 of
// the recorded one (the recorder had another order of sums, so bits cannot be compared).
// The CUDA rule, for 16-bit activations: rendered text and prompt ids equal; output ids equal up to
// the first near tie (a position whose two best tokens the recorder saw 0.15 or less apart); and
// the recorded ids scored as a prompt: at each position without a near tie the recorded token is
// the best, each output's log-probability is within 0.25, and over a file the differences of
// outputs are within 0.03 on average, those of prompts within 0.08.
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
// Of what the cluster says it computes on.
VerifyRule RuleFor(const Model& model);

// What the cluster gave for one golden. Parts that were not asked for are absent.
struct Replay {
  std::optional<TokenizeResult> tokenized;  // Of the conversation or the prompt.
  std::optional<std::string> decoded;  // Detokenize(recorded output ids), special tokens left out.
  Answer answer;
  std::optional<PromptLogprobs> scored;  // Of ScoreRequest.
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
  std::vector<std::string> differences;  // Empty: by the rule. Each a line for people.
  bool ids_equal = false;                // All output ids of the free run.
  Distances outputs;                     // Of the recorded tokens.
  Distances prompts;
  Distances alternatives;  // Of the best tokens of each position; CPU rule only.
};

Comparison CompareCpu(const Golden& golden, const Replay& replay);
// What of the CUDA rule is of one golden; CheckMeansCuda is the rest of it.
Comparison CompareCuda(const Golden& golden, const Replay& replay);

// Of the comparisons of one file's goldens, added up. A line for each bound that is broken.
std::vector<std::string> CheckMeansCuda(const Distances& outputs, const Distances& prompts);

// The request that replays a golden: greedy, as many tokens as recorded (8 more if the last is one
// of the model's end tokens: then it must end there by itself), with the log-probabilities that
// were recorded.
RequestOptions ReplayOptions(const Golden& golden, std::span<const TokenId> end_token_ids);

// The request that scores a golden's prompt and outputs as one prompt, with the best token of each
// position.
GenerateRequest ScoreRequest(const Golden& golden);

}  // namespace fathom::client
