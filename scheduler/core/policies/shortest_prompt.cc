// "shortest-prompt": a request with a short prompt overtakes those with longer ones that have not
// started. Each token of a prompt counts as an arrival that is 1 ms later, so only requests that
// come within the length of a long prompt overtake it, and every request is admitted in the end.
#include "scheduler/core/policies/policies.h"

namespace fathom::scheduler {
namespace {

class ShortestPrompt final : public Policy {
 public:
  OrderKey Push(const SequenceFacts& facts, Moves* /*moves*/) override {
    return {facts.resumed ? 0 : 1, AgedArrival(facts) + facts.prompt_tokens * kTokenUs,
            facts.number};
  }

 private:
  static constexpr TimeUs kTokenUs = 1000;
};

}  // namespace

std::unique_ptr<Policy> MakeShortestPrompt(const TenantTable* /*tenants*/) {
  return std::make_unique<ShortestPrompt>();
}

}  // namespace fathom::scheduler
