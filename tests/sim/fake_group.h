// tests/sim/fake_group.h: a group that executes plans exactly as they are written and refuses a
// plan that breaks a rule. Its KV cache holds data: the hash of all ids up to each token is stored
// in a block and read from there. So if two slots write one block, or a slot gets its block too
// late, or one with other content than the plan says, the group gives wrong tokens. A block that
// two slots have is never written. Like a worker, the group destroys what a sequence with a fault
// wrote after its last clean sample.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cluster/plan.h"
#include "common/status.h"
#include "scheduler/core/events.h"

namespace fathom::sim {

class FakeGroup {
 public:
  explicit FakeGroup(const scheduler::GroupUp& up);

  // Not OK: the plan breaks a rule, which the message names.
  absl::StatusOr<StepResult> Execute(const StepPlan& plan);

  int64_t rows_most() const { return rows_most_; }
  int64_t drafts_kept() const { return drafts_kept_; }

 private:
  struct Slot {
    Request request;
    uint64_t seed = 0;
    int32_t sequence = 0;
    int32_t prompt_tokens = 0;
    std::vector<TokenId> ids;  // Known ids, samples included.
    bool more = false;
    int32_t computed = 0;
    std::vector<BlockId> blocks;
    StepId sampled_in;
    bool sampled = false;
    int32_t clean = 0;  // The tokens that a clean sample covered, or that it was admitted with.
    bool faulted = false;
    bool guided = false;
  };

  absl::Status Copy(const BlockCopy& copy);
  absl::Status Release(SlotId id);
  absl::Status TakeAdmit(const Admit& admit);
  absl::Status TakeExtend(const scheduler::GroupLimits& limits, const Extend& extend);
  absl::StatusOr<ResultRow> Run(const Chunk& chunk, StepId step, int32_t* rows);
  absl::StatusOr<uint64_t*> Cell(Slot& slot, int32_t index);
  absl::Status Compute(Slot& slot, int32_t count, ResultRow* row);
  absl::Status Sample(Slot& slot, StepId step, ResultRow* row);
  // Checks `count` drafts, of which some are right.
  absl::Status Check(Slot& slot, StepId step, int32_t count, ResultRow* row);

  const scheduler::GroupUp up_;
  std::map<SlotId, Slot> slots_;
  std::map<BlockId, int32_t> holders_;  // Slots whose table has the block.
  std::vector<uint64_t> kv_;
  std::vector<uint64_t> swap_space_;
  std::vector<BlockId> copied_;     // Targets of the copies of this plan.
  std::set<std::string> grammars_;  // Digests of those that it holds.
  StepId next_step_;
  int64_t rows_most_ = 0;
  int64_t drafts_kept_ = 0;
};

}  // namespace fathom::sim
