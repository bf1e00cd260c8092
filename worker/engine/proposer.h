// worker/engine/proposer.h: what proposes drafts: tokens that may follow a sequence (speculative
// decoding). A proposer is a pure function of the tokens of the slot, so all ranks of a group
// propose the same drafts without a message. Drafts change no token: a draft is kept only if it
// equals the model's own sample at its position (docs/NUMERICS.md). So a proposer may be wrong or
// propose nothing, but it must be the same on every rank.
// Proposers: worker/engine/ngram_proposer.h (an earlier part of the same text),
// worker/engine/draft_model.h (a smaller model). Heads that predict several tokens would be a
// third. Thread: the engine thread.
#pragma once

#include <span>

#include "common/status.h"
#include "worker/engine/slots.h"

namespace fathom::worker {

class Proposer {
 public:
  virtual ~Proposer() = default;

  // An epoch begins: all slots are empty. Slot::admission tells the sequences of an epoch apart.
  virtual void Begin() {}

  // Fills `drafts` of each row. Errors end the epoch.
  virtual absl::Status Propose(std::span<DraftWork> rows) = 0;
};

}  // namespace fathom::worker
