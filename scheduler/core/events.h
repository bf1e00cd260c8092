// scheduler/core/events.h: what happens to the scheduler core and what it wants done. Plain data,
// no IO.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "cluster/plan.h"
#include "cluster/request.h"
#include "cluster/route_messages.h"
#include "common/types.h"
#include "scheduler/sessions/session_actions.h"

namespace fathom::scheduler {

// ---- Events ----

// The router's stream broke; its sessions run `router_grace_us` more, then suspend.
struct RouterLost {
  PeerId router;
};

// What a group's plans must keep to.
struct GroupLimits {
  int32_t blocks = 0;  // Pool size with the padding block 0: ids 1 to blocks - 1 may be given out.
  int32_t block_tokens = 16;
  int32_t slots = 0;        // Ids 1 to slots.
  int32_t step_tokens = 0;  // Rows of one step.
  int32_t context_tokens = 0;
  int32_t plans_in_flight = 2;
  // Rows of a step that decodes, prompts included, so that a prompt does not hold up the sequences
  // that run; decode rows always fit. 0: step_tokens.
  int32_t mixed_step_tokens = 0;
  // The sequences of a group are divided into so many lanes. A plan computes sequences of one lane,
  // so that plans of different lanes have no sequence in common: each pipeline stage can compute
  // the plan of another lane. 1: every plan may compute every sequence.
  int32_t lanes = 1;
};

// A group's ranks are loaded, connected and listening for plans of this epoch. It starts from empty
// slots.
struct GroupUp {
  GroupId group;
  TermId term;
  EpochId epoch;
  GroupLimits limits;
  std::string fingerprint;
  ComputeKind kind = {};
};

// The group's epoch is over; its sessions are suspended with the tokens they have.
struct GroupLost {
  GroupId group;
  EpochId epoch;
};

// Rank 0's result; the driver has seen every rank's by then or does not wait for them. Steps in
// order, each once. A row that did not sample may be left out; a sampled one has its sequence,
// position and one id, or a fault. One of an old (term, epoch) is ignored; one that cannot be gives
// a GroupAbort.
struct StepDone {
  GroupId group;
  StepResult result;
};

// Time passed. The driver sends one at least each 50 ms while anything waits on time.
struct Tick {};

using Event = std::variant<Routed<Submit>, Routed<Suspend>, Routed<Close>, RouterLost, GroupUp,
                           GroupLost, StepDone, Tick>;

// ---- Actions ----

struct PlanOut {
  GroupId group;
  StepPlan plan;
};

// The core saw a result that cannot be (a bug of a worker, or of ours): the epoch must end.
struct GroupAbort {
  GroupId group;
  EpochId epoch;
  std::string reason;
};

// The driver carries them out as follows: plans first (a device waits for them, a client only for a
// frame), then accepted, refused, frames, aborts.
struct Actions : SessionActions {
  std::vector<PlanOut> plans;
  std::vector<GroupAbort> aborts;
};

}  // namespace fathom::scheduler
