// scheduler/core/policy.h: which sequence is admitted next, and which one is preempted when blocks
// run out. Pure. A policy is a file in scheduler/core/policies/, with its function in
// scheduler/core/policies/policies.h and its row in policy.cc. Thread: the driver thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "common/types.h"
#include "scheduler/core/tenant_limits.h"
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

// Tokens that were computed for a sequence.
struct ComputedTokens {
  int64_t prefill = 0;  // Of its prompt, and of the ids that it had when it got its slot.
  int64_t decode = 0;
};

// The policy of one core, with its state. The state must stay bounded by the number of sequences
// that wait or run, plus a constant. Each time that a sequence waits, the core calls Push when the
// wait begins and Pop when it ends; each time that one is computed, it calls Charge at the end.
// Each call may add to `moves`; the core does them in order, after it did what the call is about.
// A call costs at most the logarithm of the number of sequences or tenants.
class Policy {
 public:
  virtual ~Policy() = default;

  // A sequence begins to wait. Returns its place in the queue: the waiting sequence with the least
  // key is admitted next. Others overtake it only as scheduler/core/placement.h says. Resumed
  // sequences must come before all others, because the queue's limits do not hold for them.
  virtual OrderKey Push(const SequenceFacts& facts, Moves* moves) = 0;
  // The sequence waits no more: it was admitted, or it left the queue.
  virtual void Pop(const SequenceFacts& /*facts*/, bool /*admitted*/, Moves* /*moves*/) {}
  // The admitted sequence is computed no more: it ended, or it was suspended or preempted. `tokens`
  // were computed since its Pop.
  virtual void Charge(const SequenceFacts& /*facts*/, const ComputedTokens& /*tokens*/,
                      Moves* /*moves*/) {}

  // A number of waiting sequences that would surely be admitted before a new one with these facts,
  // for forecasts.
  virtual int32_t Ahead(const SequenceFacts& /*facts*/) const { return 0; }

  // Whether tenants that use more than their share leave room for the others (TenantShares).
  virtual bool gives_shares() const { return false; }

  // When blocks run out, the running sequence with the greatest key is preempted. The core asks
  // when the sequence gets a slot. From one stay in a slot to the next the key may become less and
  // never greater: then the sequence with the least key is never preempted, and so every sequence
  // ends.
  virtual OrderKey EvictionOrder(const SequenceFacts& facts) const;
};

// The greatest `priority` is preempted first, then the latest arrival. A sequence that was
// preempted kPreemptionsMax times comes after all others, so urgent requests that arrive without
// end cannot keep it from its end: it is then preempted only for such sequences that arrived before
// it.
inline constexpr int32_t kPreemptionsMax = 4;
OrderKey PreemptionOrder(const SequenceFacts& facts);

// ---- Priority in the order of admission

// A class of priority counts as an arrival that is later by `class_us` of the policy. So a request
// of class p is admitted before those of class q < p that arrive more than (p - q) * class_us after
// it, and no request waits without end. Priorities beyond kClassMax in either direction count as
// kClassMax.
inline constexpr int32_t kClassMax = 100;
inline constexpr int64_t kClassUs = 10'000'000;  // Of all policies but "priority".
int32_t ClassOf(const SequenceFacts& facts);
TimeUs AgedArrival(const SequenceFacts& facts, int64_t class_us = kClassUs);

// Waiting sequences by their class.
class ClassCounts {
 public:
  void Add(const SequenceFacts& facts, int32_t sign);
  // Those that are at least as urgent as `facts`.
  int32_t AtLeastAsUrgent(const SequenceFacts& facts) const;

 private:
  std::map<int32_t, int32_t> counts_;  // At most 2 * kClassMax + 1.
};

// ---- The table

struct PolicyRow {
  std::string_view name;
  std::string_view old_name;  // Accepted too; empty: none.
  // `tenants` outlives the policy and may change between two calls of it.
  std::unique_ptr<Policy> (*make)(const TenantTable* tenants);
};

// All rows, the default first.
std::span<const PolicyRow> Policies();

// A new one; nullptr: there is no row of this name.
std::unique_ptr<Policy> MakePolicy(std::string_view name, const TenantTable* tenants);

}  // namespace fathom::scheduler
