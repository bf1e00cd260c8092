#include "worker/engine/ngram_proposer.h"

#include <algorithm>

namespace fathom::worker {

std::vector<TokenId> ProposeByLookup(std::span<const TokenId> ids, int32_t min_tokens,
                                     int32_t max_tokens, int32_t draft_max) {
  const auto length = std::ssize(ids);
  const TokenId* const end = ids.data() + length;
  std::ptrdiff_t best = 0, found = 0;  // The length of the longest match, and where it ends.
  for (std::ptrdiff_t at = length - 1; at >= min_tokens && best < max_tokens; --at) {
    // Compares backwards from ids[at - 1] with the last tokens.
    const std::ptrdiff_t most = std::min<std::ptrdiff_t>(at, max_tokens);
    std::ptrdiff_t same = 0;
    while (same < most && ids[static_cast<size_t>(at - 1 - same)] == end[-1 - same]) ++same;
    if (same > best) {
      best = same;
      found = at;
    }
  }
  std::vector<TokenId> drafts;
  if (best < min_tokens) return drafts;
  // Beyond the end of `ids` the text is the drafts themselves.
  for (int32_t i = 0; i < draft_max; ++i) {
    const std::ptrdiff_t from = found + i;
    drafts.push_back(from < length ? ids[static_cast<size_t>(from)]
                                   : drafts[static_cast<size_t>(from - length)]);
  }
  return drafts;
}

absl::Status NgramProposer::Propose(std::span<DraftWork> rows) {
  for (DraftWork& row : rows) {
    row.drafts = ProposeByLookup(row.slot->ids, min_tokens_, max_tokens_, row.draft_max);
  }
  return absl::OkStatus();
}

}  // namespace fathom::worker
