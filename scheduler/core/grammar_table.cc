#include "scheduler/core/grammar_table.h"

#include "common/check.h"

namespace fathom::scheduler {

bool GrammarTable::HasRoom(const GrammarRef& grammar, const StepPlan& plan) const {
  if (!grammar || held_.contains(grammar.digest()) || plan.grammars.empty()) return true;
  int64_t bytes = std::ssize(grammar->bytes);
  for (const GrammarRef& other : plan.grammars) bytes += std::ssize(other->bytes);
  return bytes <= kPlanBytesMax;
}

void GrammarTable::Use(const GrammarRef& grammar, StepPlan* plan) {
  const auto [it, added] = held_.try_emplace(grammar.digest());
  Held& held = it->second;
  ++held.uses;
  held.used_at = ++calls_;
  if (added) {
    held.bytes = std::ssize(grammar->bytes);
    bytes_ += held.bytes;
    plan->grammars.push_back(grammar);
  }
  DropUnused(plan);
}

void GrammarTable::DropUnused(StepPlan* plan) {
  while (held_.size() > kGrammarsKept || bytes_ > kGrammarBytesKept) {
    auto oldest = held_.end();
    for (auto it = held_.begin(); it != held_.end(); ++it) {
      if (it->second.uses > 0) continue;
      if (oldest == held_.end() || it->second.used_at < oldest->second.used_at) oldest = it;
    }
    if (oldest == held_.end()) return;
    plan->grammar_drops.push_back(oldest->first);
    bytes_ -= oldest->second.bytes;
    held_.erase(oldest);
  }
}

void GrammarTable::Leave(const GrammarRef& grammar) {
  const auto it = held_.find(grammar.digest());
  FATHOM_CHECK(it != held_.end() && it->second.uses > 0, "grammar {} is not in use",
               grammar.digest());
  --it->second.uses;
}

int32_t GrammarTable::uses(const std::string& digest) const {
  const auto it = held_.find(digest);
  return it == held_.end() ? 0 : it->second.uses;
}

}  // namespace fathom::scheduler
