// scheduler/core/policy.h: which sequence is admitted next, and which one is preempted when blocks
// run out. Pure. A policy is a class and its row in policy.cc; adding one touches that file and its
// test only. Thread: the driver thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "common/types.h"
#include "scheduler/sessions/session.h"

namespace fathom::scheduler {

// What a policy may look at.
struct SequenceFacts {
  uint64_t number = 0;      // Unique; grows with each new sequence.
  std::string_view tenant;  // Of the session's key, as long as the session.
  TimeUs arrival_us = 0;    // First acceptance.
  bool resumed = false;     // Was seated before, here or under another leader.
  int32_t prompt_tokens = 0;
  int32_t max_tokens = 0;        // Of the request.
  int32_t generated_tokens = 0;  // So far.
};

// One policy at work in one core, with whatever state it keeps of those who wait and run. State
// must stay bounded by the sequences that wait or run. For every sequence the core calls
// Push and then Pop, as often as the sequence waits.
class Policy {
 public:
  virtual ~Policy() = default;

  // A sequence begins to wait: its place in the queue. The waiting sequence with the least key is
  // admitted next, and none overtakes it for want of room. Resumed sequences must come before the
  // others: they are exempt from the queue's limits.
  virtual OrderKey Push(const SequenceFacts& facts) = 0;
  // It does not wait any more: it was admitted, or left.
  virtual void Pop(const SequenceFacts& /*facts*/, bool /*admitted*/) {}

  // When blocks run out, the running sequence with the greatest key is preempted. The key must not
  // change over a sequence's life: then the least one is never disturbed, and every sequence ends.
  virtual OrderKey EvictionOrder(const SequenceFacts& facts) const = 0;
};

struct PolicyRow {
  std::string_view name;
  std::unique_ptr<Policy> (*make)();
};

// All rows, the default first.
std::span<const PolicyRow> Policies();

// A new one; nullptr: there is no row of this name.
std::unique_ptr<Policy> MakePolicy(std::string_view name);

}  // namespace fathom::scheduler
