#include "scheduler/core/policy.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>

namespace fathom::scheduler {
namespace {

// First come, first served.
class FirstComeFirstServed final : public Policy {
 public:
  OrderKey Push(const SequenceFacts& facts, Moves* /*moves*/) override {
    return {facts.resumed ? 0 : 1, facts.arrival_us, facts.number};
  }
  OrderKey EvictionOrder(const SequenceFacts& facts) const override {
    return PreemptionOrder(facts);
  }
};

// Short requests overtake longer ones that have not started.
class ShortestFirst final : public Policy {
 public:
  OrderKey Push(const SequenceFacts& facts, Moves* /*moves*/) override {
    const int64_t tokens = int64_t{facts.prompt_tokens} + facts.max_tokens;
    return {facts.resumed ? 0 : 1, facts.arrival_us + tokens * kTokenUs, facts.number};
  }
  OrderKey EvictionOrder(const SequenceFacts& facts) const override {
    return PreemptionOrder(facts);
  }

 private:
  // Each token of a request counts as an arrival that is later by this time. So only requests that
  // come within the length of a long request can overtake it, and every request is admitted in the
  // end.
  static constexpr TimeUs kTokenUs = 1000;
};

// Equal shares for tenants in the tokens that are computed for them. Each tenant has a counter: the
// tokens computed for it, and for each sequence that runs the tokens that it asks for (prompt and
// max_tokens), which Charge replaces by the tokens that were computed. The oldest waiting sequence
// of each tenant has the counter as its place; the others wait behind all of these. So the tenant
// with the least counter is admitted next. Of two tenants that always have a sequence that waits,
// the computed tokens differ at most by what the running sequences and one more ask for. A tenant
// that had none waiting has no credit: its counter is raised to the least one of those that wait.
// When no sequence waits, all counters begin at 0 again.
class FairShare final : public Policy {
 public:
  OrderKey Push(const SequenceFacts& facts, Moves* moves) override {
    if (facts.resumed) return {0, facts.arrival_us, facts.number};
    const int64_t least = LeastPlace();
    Tenant& tenant = tenants_[std::string(facts.tenant)];
    if (tenant.waiting.empty()) {
      tenant.computed = std::max(tenant.computed, least - tenant.expected);
    }
    tenant.waiting.insert(facts.number);
    ++waiting_;
    if (*tenant.waiting.begin() != facts.number) return Behind(facts.number);
    if (tenant.head) moves->push_back({*tenant.head, Behind(tenant.head->number)});
    tenant.head = OrderKey{1, tenant.place(), facts.number};
    return *tenant.head;
  }
  void Pop(const SequenceFacts& facts, bool admitted, Moves* moves) override {
    if (!admitted && !tenants_.contains(std::string(facts.tenant))) return;
    Tenant& tenant = tenants_[std::string(facts.tenant)];
    if (tenant.waiting.erase(facts.number) > 0) --waiting_;  // A resumed one has no place.
    if (tenant.head && tenant.head->number == facts.number) tenant.head.reset();
    if (admitted) {
      const int64_t asked = int64_t{facts.prompt_tokens} + facts.max_tokens;
      tenant.expected += asked;
      tenant.running.emplace(facts.number, asked);
    }
    Place(tenant, moves);
    Forget();
  }
  void Charge(const SequenceFacts& facts, int64_t tokens, Moves* moves) override {
    const auto found = tenants_.find(std::string(facts.tenant));
    if (found == tenants_.end()) return;
    Tenant& tenant = found->second;
    const auto asked = tenant.running.find(facts.number);
    if (asked == tenant.running.end()) return;
    tenant.expected -= asked->second;
    tenant.running.erase(asked);
    tenant.computed += tokens;
    Place(tenant, moves);
    Forget();
  }
  OrderKey EvictionOrder(const SequenceFacts& facts) const override {
    return PreemptionOrder(facts);
  }

 private:
  // The most tenants whose counters are kept although they neither wait nor run.
  static constexpr size_t kIdleMax = 1024;
  struct Tenant {
    int64_t computed = 0;
    int64_t expected = 0;                 // The sum of `running`.
    std::map<uint64_t, int64_t> running;  // Sequence number to the tokens that it asks for.
    std::set<uint64_t> waiting;           // Sequence numbers; not of resumed ones.
    std::optional<OrderKey> head;         // Of the first of `waiting`, if it has its place.
    int64_t place() const { return computed + expected; }
    bool idle() const { return waiting.empty() && running.empty(); }
  };

  static OrderKey Behind(uint64_t number) { return {2, 0, number}; }

  // Gives the tenant's oldest waiting sequence the place that it has now.
  static void Place(Tenant& tenant, Moves* moves) {
    if (tenant.waiting.empty()) return;
    const OrderKey place{1, tenant.place(), *tenant.waiting.begin()};
    const OrderKey from = tenant.head.value_or(Behind(place.number));
    if (from == place) return;
    moves->push_back({from, place});
    tenant.head = place;
  }

  int64_t LeastPlace() const {
    std::optional<int64_t> least;
    for (const auto& [name, tenant] : tenants_) {
      if (!tenant.waiting.empty()) least = std::min(least.value_or(tenant.place()), tenant.place());
    }
    return least.value_or(0);
  }

  // An idle tenant whose counter would be raised anyway is like an unknown one.
  void Forget() {
    if (waiting_ == 0) {
      for (auto& [name, tenant] : tenants_) tenant.computed = 0;
    }
    const int64_t least = LeastPlace();
    std::erase_if(tenants_, [least](const auto& each) {
      return each.second.idle() && each.second.computed <= least;
    });
    const auto idle =
        std::ranges::count_if(tenants_, [](const auto& e) { return e.second.idle(); });
    if (static_cast<size_t>(idle) <= kIdleMax) return;
    std::erase_if(tenants_, [](const auto& each) { return each.second.idle(); });
  }

  int64_t waiting_ = 0;  // Over all tenants.
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

OrderKey PreemptionOrder(const SequenceFacts& facts) {
  const bool spared = facts.preemptions >= kPreemptionsMax;
  return {spared ? std::numeric_limits<int64_t>::min() : facts.priority, facts.arrival_us,
          facts.number};
}

std::span<const PolicyRow> Policies() { return kPolicies; }

std::unique_ptr<Policy> MakePolicy(std::string_view name) {
  for (const PolicyRow& row : kPolicies) {
    if (row.name == name) return row.make();
  }
  return nullptr;
}

}  // namespace fathom::scheduler
