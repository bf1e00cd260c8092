// scheduler/core/policy.h: which sequence is admitted next, and which one is preempted when blocks
// run out. Pure. A policy is a class and its row in policy.cc; a new policy changes only that file
// and its test. Thread: the driver thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "common/types.h"
#include "scheduler/sessions/session.h"

namespace fathom::scheduler {

// What a policy may look at.
struct SequenceFacts {
  uint64_t number = 0;      // Unique; grows with each new sequence.
  std::string_view tenant;  // Of the session's key, as long as the session.
  int32_t priority = 0;     // Of the record: smaller is more urgent.
  TimeUs arrival_us = 0;    // First acceptance.
  bool resumed = false;     // Was seated before, here or under another leader.
  int32_t prompt_tokens = 0;
  int32_t max_tokens = 0;        // Of the request.
  int32_t generated_tokens = 0;  // So far.
  int32_t preemptions = 0;       // So far, under this leader.
};

// A waiting sequence gets another place in the queue.
struct Move {
  OrderKey from, to;
};
using Moves = std::vector<Move>;

// The policy of one core, with its state. The state must stay bounded by the number of sequences
// that wait or run, plus a constant. Each time that a sequence waits, the core calls Push when the
// wait begins and Pop when it ends; each time that one is computed, it calls Charge at the end.
// Each call may add to `moves`; the core does them in order, after it did what the call is about.
class Policy {
 public:
  virtual ~Policy() = default;

  // A sequence begins to wait. Returns its place in the queue: the waiting sequence with the least
  // key is admitted next, and no other one overtakes it because it needs less room. Resumed
  // sequences must come before all others, because the queue's limits do not hold for them.
  virtual OrderKey Push(const SequenceFacts& facts, Moves* moves) = 0;
  // The sequence waits no more: it was admitted, or it left the queue.
  virtual void Pop(const SequenceFacts& /*facts*/, bool /*admitted*/, Moves* /*moves*/) {}
  // The admitted sequence is computed no more: it ended, or it was suspended or preempted. `tokens`
  // were computed since its Pop: of its prompt, of the ids that it had, and new ones.
  virtual void Charge(const SequenceFacts& /*facts*/, int64_t /*tokens*/, Moves* /*moves*/) {}

  // When blocks run out, the running sequence with the greatest key is preempted. The core asks
  // when the sequence gets a slot. From one stay in a slot to the next the key may become less and
  // never greater: then the sequence with the least key is never preempted, and so every sequence
  // ends. All policies have the same rule (PreemptionOrder).
  virtual OrderKey EvictionOrder(const SequenceFacts& facts) const = 0;
};

// The greatest `priority` is preempted first, then the latest arrival. A sequence that was
// preempted kPreemptionsMax times comes after all others, so urgent requests that arrive without
// end cannot keep it from its end: it is then preempted only for such sequences that arrived before
// it.
inline constexpr int32_t kPreemptionsMax = 4;
OrderKey PreemptionOrder(const SequenceFacts& facts);

struct PolicyRow {
  std::string_view name;
  std::unique_ptr<Policy> (*make)();
};

// All rows, the default first.
std::span<const PolicyRow> Policies();

// A new one; nullptr: there is no row of this name.
std::unique_ptr<Policy> MakePolicy(std::string_view name);

}  // namespace fathom::scheduler
