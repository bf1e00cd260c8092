// tests/worker/guessing_proposer.h: a proposer that knows the naive model of a sequence: about two
// of three drafts are the token that comes, the others are not.
#pragma once

#include <span>

#include "tests/worker/naive_sequence.h"
#include "worker/engine/proposer.h"

namespace fathom::worker {

class GuessingProposer final : public Proposer {
 public:
  absl::Status Propose(std::span<DraftWork> rows) override {
    for (DraftWork& row : rows) {
      const Slot& slot = *row.slot;
      FATHOM_CHECK(slot.known_tokens == slot.length());
      Naive naive{slot.request, slot.seed, slot.prompt_tokens, slot.ids, slot.sequence};
      // Every seventh row has fewer drafts than it may have.
      const int32_t wanted = naive.ids.back() % 7 == 0 ? row.draft_max / 2 : row.draft_max;
      for (int32_t i = 0; i < wanted; ++i) {
        TokenId draft = naive.Next();
        if ((naive.ids.size() * 7 + static_cast<size_t>(draft)) % 3 == 0) {
          draft = (draft + 1) % kPoison;
        }
        row.drafts.push_back(draft);
        naive.ids.push_back(draft);
      }
      proposed += wanted;
    }
    return absl::OkStatus();
  }
  int64_t proposed = 0;
};

}  // namespace fathom::worker
