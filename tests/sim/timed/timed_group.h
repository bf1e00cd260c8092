// tests/sim/timed/timed_group.h: a group that needs the time of the cost model for each plan. It
// checks that a plan keeps its limits, and knows of each slot only counts; which block holds which
// token is checked by tests/sim/fake_group.h.
#pragma once

#include <cstdint>
#include <vector>

#include "cluster/plan.h"
#include "common/status.h"
#include "scheduler/core/events.h"
#include "tests/sim/timed/cost_model.h"

namespace fathom::sim {

// The token of a request at a position.
TokenId TimedToken(uint64_t seed, int32_t position);

class TimedGroup {
 public:
  TimedGroup(const scheduler::GroupUp& up, const GroupCosts& costs);

  struct Step {
    StepResult result;  // With the step's time in its timings.
    TimeUs us = 0;
    StepWork work;
    int64_t swapped_blocks = 0;
  };
  // Not OK: the plan breaks a rule, which the message names.
  absl::StatusOr<Step> Execute(const StepPlan& plan);

 private:
  struct Slot {
    bool taken = false;
    bool more = false;  // More ids are to come.
    bool sampled = false;
    uint64_t seed = 0;
    int32_t sequence = 0;
    int32_t prompt_tokens = 0;
    int32_t known = 0;     // Ids, samples included.
    int32_t computed = 0;  // Tokens whose KV is in the blocks.
    int64_t blocks = 0;
    StepId sampled_in;
  };

  absl::StatusOr<Slot*> Taken(SlotId id);
  absl::Status ApplyChanges(const StepPlan& plan);
  absl::Status TakeAdmit(const Admit& admit);
  absl::Status Run(const Chunk& chunk, StepId step, StepWork* work, ResultRow* row);
  absl::Status CheckRows(const StepWork& work, bool decodes) const;

  const scheduler::GroupUp up_;
  const GroupCosts costs_;
  std::vector<Slot> slots_;  // By id; [0] is padding.
  StepId next_step_;
};

}  // namespace fathom::sim
