// cli/verify/cached_rules.h: the requests with which `fathom verify --cached` shows that an answer
// from the prefix cache has the bits of a cold one, and the comparison of two answers. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/types.h"
#include "common/status.h"

namespace fathom::client {

struct CachedCase {
  GenerateRequest first;      // Sampled, with log-probabilities.
  std::vector<TokenId> more;  // Follows the answer in the next turn of the conversation.
};

// Random prompts of up to 700 tokens, as many as fit the model's context and pool.
// FAILED_PRECONDITION: the context is too short for a prompt with a whole block.
absl::StatusOr<std::vector<CachedCase>> MakeCachedCases(const Model& model, int32_t count,
                                                        uint64_t seed);

// The next turn: the prompt, the answer and `more` as one prompt.
GenerateRequest NextTurn(const CachedCase& one, const Answer& answer);

// What differs between the bits of two answers: tokens, log-probabilities and alternatives. Empty:
// nothing.
std::string DifferenceOf(const Answer& got, const Answer& want);

}  // namespace fathom::client
