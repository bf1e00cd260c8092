// scheduler/core/group.h: one live group as the core sees it: its blocks and slots, who sits in
// them, and the steps in flight with what each row was for. Plain data; a new epoch is a new Group.
#pragma once

#include <cstdint>
#include <deque>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"
#include "common/types.h"
#include "scheduler/core/events.h"
#include "scheduler/core/kv_allocator.h"
#include "scheduler/sessions/session.h"

namespace fathom::scheduler {

// What a row of a sent plan was for. Results are matched with this, never with the slot's present
// owner.
struct FlightRow {
  uint64_t session = 0;  // Session::number; the session may be gone by now.
  int32_t sequence = 0;
  uint64_t seat = 0;
  int32_t tokens = 0;  // Rows of the step.
  bool prefill = false;
  int32_t ids_max = 0;   // Sampled tokens that the result may bring; it brings at least 1 unless 0.
  int32_t position = 0;  // Of the first one.
  bool logprobs = false;  // Asked for.
  bool prompt_logprobs = false;
  int32_t prompt_tokens = 0;
};

struct FlightStep {
  StepId step;
  int32_t lane = 0;
  std::vector<FlightRow> rows;  // By row of the plan.
};

struct Group {
  explicit Group(const GroupUp& up);

  GroupId id;
  TermId term;
  EpochId epoch;
  GroupLimits limits;
  std::string fingerprint;
  ComputeKind kind;

  KvAllocator kv;
  std::vector<SlotId> free_slots;  // Last in, first out.
  std::vector<SlotId> released;    // To be released by the next plan, before anybody is admitted.
  std::set<std::pair<OrderKey, Sequence*>>
      running;  // By the policy's keep key; the last is suspended first.
  std::deque<FlightStep> in_flight;
  StepId next_step;

  std::vector<int32_t> lane_sizes;  // Running sequences of each lane.
  int32_t next_lane = 0;            // The first that the next plan tries.

  bool full() const { return in_flight.size() >= static_cast<size_t>(limits.plans_in_flight); }
  // Plans of one lane, and with that of one sequence, that may be in flight.
  int32_t lane_plans_max() const { return 1 + (limits.plans_in_flight - 1) / limits.lanes; }
  bool lane_full(int32_t lane) const;
};

// INVALID_ARGUMENT when no plan could keep to `limits`.
absl::Status CheckLimits(const GroupLimits& limits);

// Not OK when `result` cannot be the answer to `flight`; then nothing of it may be applied.
absl::Status CheckResult(const FlightStep& flight, const StepResult& result);

// INTERNAL naming the first broken invariant. O(slots + blocks).
absl::Status CheckGroup(const Group& group);

}  // namespace fathom::scheduler
