// scheduler/core/grammar_table.h: which grammars the workers of a group hold in this epoch. A
// grammar is in the plan that first needs it and stays with the workers after its last sequence has
// left, until others need the room. Bounded: without those of sequences in slots at most
// kGrammarsKept grammars and kGrammarBytesKept bytes. Pure; owned by the driver thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "cluster/plan.h"
#include "cluster/request.h"

namespace fathom::scheduler {

class GrammarTable {
 public:
  static constexpr size_t kGrammarsKept = 64;
  static constexpr int64_t kGrammarBytesKept = int64_t{64} << 20;
  // Of one plan, beyond its first grammar.
  static constexpr int64_t kPlanBytesMax = int64_t{16} << 20;

  // Whether `plan` can take one more sequence that follows `grammar` (or none).
  bool HasRoom(const GrammarRef& grammar, const StepPlan& plan) const;
  // A sequence that follows `grammar` gets a slot by `plan`, which gets the grammar if the workers
  // do not hold it, and what they drop for it.
  void Use(const GrammarRef& grammar, StepPlan* plan);
  // REQUIRES: as many calls of Use before it.
  void Leave(const GrammarRef& grammar);

  // The sequences in slots that follow the grammar.
  int32_t uses(const std::string& digest) const;
  size_t size() const { return held_.size(); }
  int64_t bytes() const { return bytes_; }

 private:
  struct Held {
    int32_t uses = 0;
    uint64_t used_at = 0;  // In calls of Use.
    int64_t bytes = 0;
  };
  void DropUnused(StepPlan* plan);

  std::map<std::string, Held> held_;  // By digest.
  int64_t bytes_ = 0;
  uint64_t calls_ = 0;
};

}  // namespace fathom::scheduler
