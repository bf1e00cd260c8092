// scheduler/core/events.h: the events that the scheduler core takes, and the actions that it asks
// of the driver. Plain data, no IO.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "cluster/plan.h"
#include "cluster/protocol.h"
#include "cluster/request.h"
#include "cluster/route_messages.h"
#include "common/types.h"
#include "scheduler/core/tenant_limits.h"
#include "scheduler/sessions/session_actions.h"

namespace fathom::scheduler {

// ---- Events ----

// The router's stream broke. Its sessions run for `router_grace_us` more; then each one that has no
// other subscriber is suspended.
struct RouterLost {
  PeerId router;
};

// The limits that every plan of a group must keep.
struct GroupLimits {
  int32_t blocks = 0;  // Pool size with the padding block 0: ids 1 to blocks - 1 are handed out.
  int32_t block_tokens = 16;
  int32_t slots = 0;        // Ids 1 to slots.
  int32_t step_tokens = 0;  // Rows of one step.
  int32_t context_tokens = 0;
  int32_t plans_in_flight = 2;
  // The most rows of a step that has decode rows, prompt rows included. Without this limit a long
  // prompt makes the steps long, and the sequences that decode get their tokens late. Decode rows
  // always fit. 0: step_tokens.
  int32_t mixed_step_tokens = 0;
  // The sequences of a group are divided into so many lanes. A plan computes sequences of one lane,
  // so that plans of different lanes have no sequence in common: each pipeline stage can compute
  // the plan of another lane. 1: every plan may compute every sequence.
  int32_t lanes = 1;
  // Of the cluster's protocol: the version that every worker of the group speaks.
  uint32_t protocol = kProtocolMin;
  // Blocks of swap space in the host's memory of each rank: ids 1 to host_blocks. 0: none.
  int32_t host_blocks = 0;
  // The most drafts of a decode row, at most kDraftsMax. 0: the group does not speculate.
  int32_t draft_max = 0;
  // The vocabulary of the grammars that every worker of the group can follow. Empty: they follow
  // none.
  std::string grammar_vocabulary = {};
};

// All ranks of a group are loaded, connected and listening for plans of this epoch. The group
// starts with empty slots.
struct GroupUp {
  GroupId group;
  TermId term;
  EpochId epoch;
  GroupLimits limits;
  std::string fingerprint;
  ComputeKind kind = {};
};

// The group's epoch is over. Its sequences wait again, and their records keep their tokens.
struct GroupLost {
  GroupId group;
  EpochId epoch;
};

// The group takes no more sequences, because one of its workers leaves. Its sequences move to other
// groups of its kind; those that fit none of them stay until they end. When none is left, the core
// returns a GroupDrained; the epoch ends with GroupLost, as always.
struct GroupDrain {
  GroupId group;
  EpochId epoch;
};

// The answering rank's result of a step; the core gets no result of another rank. Results come in
// the order of their steps, each once. A row that did not sample may be left out; a row that
// sampled has its sequence, its position and one id (a decode row with drafts: one to draft_max + 1
// ids), or a fault. The core ignores a result of another (term, epoch). For a result that
// contradicts its plan the core returns a GroupAbort.
struct StepDone {
  GroupId group;
  StepResult result;
};

// The operator's shares and limits of tenants, from now on. Without one, each tenant has the same
// share and no limit.
struct TenantsChanged {
  TenantTable table;
};

// Time passed. The driver sends a Tick when the core's NextWakeup() is due.
struct Tick {};

using Event = std::variant<Routed<Submit>, Routed<Suspend>, Routed<Close>, RouterLost, GroupUp,
                           GroupLost, StepDone, Tick, TenantsChanged, GroupDrain>;

// ---- Actions ----

struct PlanOut {
  GroupId group;
  StepPlan plan;
};

// The core got a result that contradicts its plan, or limits that no plan can keep (a bug of a
// worker, or of ours): the driver must end the epoch.
struct GroupAbort {
  GroupId group;
  EpochId epoch;
  std::string reason;
};

// A group that drains has no sequence and no step in flight: the driver must end the epoch. Comes
// once for each epoch.
struct GroupDrained {
  GroupId group;
  EpochId epoch;
};

// The driver carries out the actions in this order: plans, accepted, refused, frames, aborts,
// drained. Plans are first because a device is idle until it has one.
struct Actions : SessionActions {
  std::vector<PlanOut> plans;
  std::vector<GroupAbort> aborts;
  std::vector<GroupDrained> drained;
};

}  // namespace fathom::scheduler
