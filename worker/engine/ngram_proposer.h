// worker/engine/ngram_proposer.h: proposes what followed an earlier occurrence of the last tokens
// (prompt lookup). It needs no model, and gains where an answer repeats parts of its prompt or of
// itself: summaries, edits of code, structured data. Thread: the engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/types.h"
#include "worker/engine/proposer.h"

namespace fathom::worker {

// The tokens after the latest occurrence in `ids` of the longest suffix of `ids` of `min_tokens` to
// `max_tokens` tokens that occurs earlier; at most `draft_max`, and none if no such suffix occurs.
// The occurrence may overlap the suffix, so a loop is continued to the full length. O(length of
// ids). REQUIRES: 1 <= min_tokens <= max_tokens.
std::vector<TokenId> ProposeByLookup(std::span<const TokenId> ids, int32_t min_tokens,
                                     int32_t max_tokens, int32_t draft_max);

class NgramProposer final : public Proposer {
 public:
  NgramProposer(int32_t min_tokens, int32_t max_tokens)
      : min_tokens_(min_tokens), max_tokens_(max_tokens) {}
  absl::Status Propose(std::span<DraftWork> rows) override;

 private:
  const int32_t min_tokens_;
  const int32_t max_tokens_;
};

}  // namespace fathom::worker
