// scheduler/core/group.h: one live group as the core sees it: its blocks and slots, the
// sequences in its slots, and the steps in flight with the purpose of each row. Plain data; each
// epoch has a Group of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/types.h"
#include "scheduler/core/block_pool.h"
#include "scheduler/core/events.h"
#include "scheduler/core/grammar_table.h"
#include "scheduler/core/kv_allocator.h"
#include "scheduler/core/running_set.h"
#include "scheduler/core/speculation.h"
#include "scheduler/core/swap_cost.h"
#include "scheduler/core/wait_queue.h"
#include "scheduler/sessions/session.h"

namespace fathom::scheduler {

// The purpose of a row of a plan that was sent. The core matches results with this and never with
// the sequence that is in the slot now: by now the slot may hold another sequence.
struct FlightRow {
  uint64_t session = 0;  // Session::number; the session may be gone by now.
  int32_t sequence = 0;
  uint64_t seat = 0;
  int32_t tokens = 0;      // Rows of the step.
  int32_t end_tokens = 0;  // The sequence's first tokens that are in its blocks after the step.
  bool prefill = false;
  int32_t ids_max = 0;    // The most sampled tokens of the result; unless 0, it has at least 1.
  int32_t position = 0;   // Of the first sampled token.
  bool logprobs = false;  // Whether the request asks for them.
  bool prompt_logprobs = false;
  int32_t prompt_tokens = 0;
};

struct FlightStep {
  StepId step;
  int32_t lane = 0;
  int32_t swapped_blocks = 0;   // Copies between pool and swap space.
  std::vector<FlightRow> rows;  // By row of the plan.
  TimeUs planned_us = 0;
  bool drafts = false;  // A row was granted drafts, so the plan's effect is known with its result.
};

struct Group {
  explicit Group(const GroupUp& up);

  GroupId id;
  TermId term;
  EpochId epoch;
  GroupLimits limits;
  std::string fingerprint;
  ComputeKind kind;
  WaitQueue::Kind lines;  // Whose sequences it takes.

  KvAllocator kv;
  BlockPool swap_space;
  std::map<uint64_t, Sequence*> swapped;  // By Sequence::number: those with KV in swap_space.
  SwapCost swap_cost;
  std::vector<BlockCopy> copies;   // The next plan does them before its other copies.
  std::vector<SlotId> free_slots;  // Last in, first out.
  std::vector<SlotId> released;    // The next plan releases them before its admits.
  RunningSet running;              // By RunningState::keep.
  std::deque<FlightStep> in_flight;
  StepId next_step;
  TimeUs result_us = 0;  // When it came up, or its last result came.

  std::vector<int32_t> lane_sizes;  // Running sequences of each lane.
  int32_t next_lane = 0;            // The lane that the next plan tries first.
  bool draining = false;            // It admits no sequence.
  bool drained = false;             // The driver was told that it has none left.
  Speculation speculation;
  GrammarTable grammars;  // What the workers of the epoch hold.

  // No more slots than rows of a step, so that each step has room for a decode row of every slot.
  int32_t slots() const { return std::min(limits.slots, limits.step_tokens); }
  bool full() const { return in_flight.size() >= static_cast<size_t>(limits.plans_in_flight); }
  // The most plans of one lane, and so of one sequence, that may be in flight.
  int32_t lane_plans_max() const { return 1 + (limits.plans_in_flight - 1) / limits.lanes; }
  bool lane_full(int32_t lane) const;
  // Whether the results of all steps that were planned before `step` have come.
  bool HasResultsBefore(StepId step) const {
    return in_flight.empty() || in_flight.front().step >= step;
  }
  // The sequences of the lane that may have a decode row in its next plan.
  int32_t Decoders(int32_t lane) const;
  // Whether the lane must have the results of its plans in flight before its next plan: the lengths
  // of sequences depend on a result, or will depend on that of the next plan.
  bool AwaitsResults(int32_t lane) const;
};

// INVALID_ARGUMENT: no plan can keep `limits`.
absl::Status CheckLimits(const GroupLimits& limits);

// Not OK: `result` contradicts `flight`. The caller must then apply no row of it.
absl::Status CheckResult(const FlightStep& flight, const StepResult& result);

// INTERNAL naming the first broken invariant. O(slots + blocks).
absl::Status CheckGroup(const Group& group);

}  // namespace fathom::scheduler
