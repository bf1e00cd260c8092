#include "scheduler/core/policy.h"

#include <algorithm>
#include <map>
#include <string>

namespace fathom::scheduler {
namespace {

OrderKey ByArrival(const SequenceFacts& facts) { return {0, facts.arrival_us, facts.number}; }

// First come, first served. The latest arrival is preempted.
class FirstComeFirstServed final : public Policy {
 public:
  OrderKey Push(const SequenceFacts& facts) override {
    return {facts.resumed ? 0 : 1, facts.arrival_us, facts.number};
  }
  OrderKey EvictionOrder(const SequenceFacts& facts) const override { return ByArrival(facts); }
};

// Short requests overtake longer ones that have not started. The latest arrival is preempted.
class ShortestFirst final : public Policy {
 public:
  OrderKey Push(const SequenceFacts& facts) override {
    const int64_t tokens = int64_t{facts.prompt_tokens} + facts.max_tokens;
    return {facts.resumed ? 0 : 1, facts.arrival_us + tokens * kTokenUs, facts.number};
  }
  OrderKey EvictionOrder(const SequenceFacts& facts) const override { return ByArrival(facts); }

 private:
  // Each token of a request counts as an arrival that is later by this time. So only requests that
  // come within the length of a long request can overtake it, and every request is admitted in the
  // end.
  static constexpr TimeUs kTokenUs = 1000;
};

// Equal shares for tenants: start-time fair queueing. The cost of a request is the tokens that it
// asks for, prompt and max_tokens. A request's place is the sum of the costs of its tenant's
// requests before it, but not less than the place of the request that was admitted last: a tenant
// that was idle has no credit, and the requests of a tenant that sends many wait behind each other.
// When blocks run out, the latest arrival is preempted.
class FairShare final : public Policy {
 public:
  OrderKey Push(const SequenceFacts& facts) override {
    if (facts.resumed) return {0, facts.arrival_us, facts.number};
    Tenant& tenant = tenants_[std::string(facts.tenant)];
    const int64_t start = std::max(now_, tenant.end);
    tenant.end = start + facts.prompt_tokens + facts.max_tokens;
    tenant.waiting.emplace(facts.number, start);
    ++waiting_;
    return {1, start, facts.number};
  }
  void Pop(const SequenceFacts& facts, bool admitted) override {
    const auto tenant = tenants_.find(std::string(facts.tenant));
    if (tenant == tenants_.end()) return;
    const auto place = tenant->second.waiting.find(facts.number);
    if (place == tenant->second.waiting.end()) return;  // Push gave a resumed one no place.
    if (admitted) now_ = std::max(now_, place->second);
    tenant->second.waiting.erase(place);
    if (--waiting_ == 0) {  // No request waits: all tenants begin at one place again.
      for (const auto& [name, each] : tenants_) now_ = std::max(now_, each.end);
    }
    // The next request of such a tenant begins at now_, like that of an unknown tenant, so the
    // entry can be erased.
    std::erase_if(tenants_, [this](const auto& each) {
      return each.second.waiting.empty() && each.second.end <= now_;
    });
  }
  OrderKey EvictionOrder(const SequenceFacts& facts) const override { return ByArrival(facts); }

 private:
  struct Tenant {
    int64_t end = 0;                      // The place after its last request, in tokens.
    std::map<uint64_t, int64_t> waiting;  // Sequence number to place.
  };
  int64_t now_ = 0;  // The greatest place of an admitted request, see Pop.
  int64_t waiting_ = 0;
  std::map<std::string, Tenant> tenants_;
};

template <class P>
std::unique_ptr<Policy> Make() {
  return std::make_unique<P>();
}

constexpr PolicyRow kPolicies[] = {
    {"fcfs", &Make<FirstComeFirstServed>},
    {"shortest-first", &Make<ShortestFirst>},
    {"fair-share", &Make<FairShare>},
};

}  // namespace

std::span<const PolicyRow> Policies() { return kPolicies; }

std::unique_ptr<Policy> MakePolicy(std::string_view name) {
  for (const PolicyRow& row : kPolicies) {
    if (row.name == name) return row.make();
  }
  return nullptr;
}

}  // namespace fathom::scheduler
