// "fair": each tenant gets a share of the computed tokens that is proportional to its weight.
// A tenant has a counter: the cost of the tokens that were computed for it, and for each sequence
// that runs the cost of what it asks for (prompt and max_tokens), which Charge replaces by the cost
// of what was computed. The cost of a token is that of the table, divided by the tenant's weight.
// The first waiting sequence of each tenant has the counter as its place; the others wait behind
// all of these. So the tenant with the least counter is admitted next. Of two tenants that always
// have a sequence that waits, the counters differ at most by what the running sequences and one
// more ask for (weighted token-based fair queueing: Sheng et al., "Fairness in Serving Large
// Language Models", OSDI 2024).
// A tenant that had none waiting has no credit: its counter is raised to the least one of those
// that wait. When no sequence waits, all counters begin at 0 again, so that no tenant pays for what
// it used while nobody else wanted it. Priority orders the sequences of one tenant, and not those
// of two: otherwise a tenant could take the others' shares by calling all of its requests urgent.
// The order alone would let a flood of one tenant take every slot and fill every step before the
// others come; so the tenants also leave each other room (tenant_shares.h).
#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "scheduler/core/policies/policies.h"

namespace fathom::scheduler {
namespace {

class Fair final : public Policy {
 public:
  explicit Fair(const TenantTable* tenants) : table_(*tenants) {}

  OrderKey Push(const SequenceFacts& facts, Moves* moves) override;
  void Pop(const SequenceFacts& facts, bool admitted, Moves* moves) override;
  void Charge(const SequenceFacts& facts, const ComputedTokens& tokens, Moves* moves) override;
  bool gives_shares() const override { return true; }
  int32_t Ahead(const SequenceFacts& facts) const override {
    const auto tenant = tenants_.find(facts.tenant);
    return tenant == tenants_.end() ? 0 : tenant->second.classes.AtLeastAsUrgent(facts);
  }

 private:
  // The most tenants whose counters are kept although they neither wait nor run.
  static constexpr size_t kIdleMax = 1024;
  static constexpr int64_t kScale = 1000;  // A cost is in thousandths, so that weights divide it.

  using Waiting = std::pair<TimeUs, uint64_t>;  // Aged arrival and number.
  struct Tenant {
    int64_t computed = 0;  // Of `generation`; else 0.
    uint64_t generation = 0;
    int64_t expected = 0;                 // The sum of `running`.
    std::map<uint64_t, int64_t> running;  // Sequence number to the cost of what it asks for.
    std::set<Waiting> waiting;            // Without resumed ones.
    ClassCounts classes;                  // Of `waiting`.
    std::optional<OrderKey> head;         // Of the first of `waiting`, if it has its place.
    bool idle() const { return waiting.empty() && running.empty(); }
  };
  using Entry = std::map<std::string, Tenant, std::less<>>::iterator;

  int64_t CostOf(std::string_view tenant, int64_t prefill, int64_t decode) const {
    const int64_t tokens = prefill * table_.prefill_cost + decode * table_.decode_cost;
    return tokens * kScale / table_.Of(tenant).weight;
  }
  int64_t PlaceOf(const Tenant& tenant) const {
    return (tenant.generation == generation_ ? tenant.computed : 0) + tenant.expected;
  }
  void SetComputed(Tenant& tenant, int64_t computed) {
    tenant.computed = computed;
    tenant.generation = generation_;
  }
  static OrderKey Behind(const Waiting& at) { return {2, at.first, at.second}; }

  // Takes the tenant out of the indexes, and puts it back with its present counter. Between the two
  // the counter and the sets of the tenant may change.
  Entry Take(std::string_view name);
  void Put(Entry entry);
  // Gives the tenant's first waiting sequence the place that it has now.
  void Place(Tenant& tenant, Moves* moves);
  // An idle tenant whose counter would be raised anyway is like an unknown one.
  void Forget();
  int64_t LeastPlace() const { return places_.empty() ? 0 : places_.begin()->first; }

  const TenantTable& table_;
  std::map<std::string, Tenant, std::less<>> tenants_;
  // Counter and name of the tenants that wait, and of those that neither wait nor run.
  std::set<std::pair<int64_t, std::string>> places_, idle_;
  uint64_t generation_ = 0;  // Grows when no sequence waits: all counters are then 0.
};

Fair::Entry Fair::Take(std::string_view name) {
  auto entry = tenants_.find(name);
  if (entry == tenants_.end()) return tenants_.emplace(std::string(name), Tenant{}).first;
  const std::pair<int64_t, std::string> at{PlaceOf(entry->second), entry->first};
  places_.erase(at);
  idle_.erase(at);
  return entry;
}

void Fair::Put(Entry entry) {
  const Tenant& tenant = entry->second;
  if (!tenant.waiting.empty()) {
    places_.emplace(PlaceOf(tenant), entry->first);
  } else if (tenant.idle()) {
    idle_.emplace(PlaceOf(tenant), entry->first);
  }
  Forget();
}

void Fair::Forget() {
  if (places_.empty()) {
    for (const auto& [at, name] : idle_) tenants_.erase(tenants_.find(name));
    idle_.clear();
    ++generation_;
    return;
  }
  while (!idle_.empty() && (idle_.begin()->first <= LeastPlace() || idle_.size() > kIdleMax)) {
    tenants_.erase(tenants_.find(idle_.begin()->second));
    idle_.erase(idle_.begin());
  }
}

OrderKey Fair::Push(const SequenceFacts& facts, Moves* moves) {
  if (facts.resumed) return {0, AgedArrival(facts), facts.number};
  const Entry entry = Take(facts.tenant);
  Tenant& tenant = entry->second;
  if (tenant.waiting.empty()) {
    SetComputed(tenant,
                std::max(PlaceOf(tenant) - tenant.expected, LeastPlace() - tenant.expected));
  }
  const Waiting at{AgedArrival(facts), facts.number};
  tenant.waiting.insert(at);
  tenant.classes.Add(facts, 1);
  OrderKey order = Behind(at);
  if (*tenant.waiting.begin() == at) {
    if (tenant.head) moves->push_back({*tenant.head, Behind(*std::next(tenant.waiting.begin()))});
    order = {1, PlaceOf(tenant), facts.number};
    tenant.head = order;
  }
  Put(entry);
  return order;
}

void Fair::Pop(const SequenceFacts& facts, bool admitted, Moves* moves) {
  if (!admitted && !tenants_.contains(facts.tenant)) return;
  const Entry entry = Take(facts.tenant);
  Tenant& tenant = entry->second;
  // A resumed one has no place among the tenant's.
  if (tenant.waiting.erase({AgedArrival(facts), facts.number}) > 0) tenant.classes.Add(facts, -1);
  if (tenant.head && tenant.head->number == facts.number) tenant.head.reset();
  if (admitted) {
    const int64_t asked = CostOf(facts.tenant, facts.prompt_tokens, facts.max_tokens);
    tenant.expected += asked;
    tenant.running.emplace(facts.number, asked);
  }
  Place(tenant, moves);
  Put(entry);
}

void Fair::Charge(const SequenceFacts& facts, const ComputedTokens& tokens, Moves* moves) {
  if (!tenants_.contains(facts.tenant)) return;
  const Entry entry = Take(facts.tenant);
  Tenant& tenant = entry->second;
  if (const auto asked = tenant.running.find(facts.number); asked != tenant.running.end()) {
    const int64_t computed = PlaceOf(tenant) - tenant.expected;
    tenant.expected -= asked->second;
    tenant.running.erase(asked);
    SetComputed(tenant, computed + CostOf(facts.tenant, tokens.prefill, tokens.decode));
    Place(tenant, moves);
  }
  Put(entry);
}

void Fair::Place(Tenant& tenant, Moves* moves) {
  if (tenant.waiting.empty()) return;
  const Waiting first = *tenant.waiting.begin();
  const OrderKey place{1, PlaceOf(tenant), first.second};
  const OrderKey from = tenant.head.value_or(Behind(first));
  if (from == place) return;
  moves->push_back({from, place});
  tenant.head = place;
}

}  // namespace

std::unique_ptr<Policy> MakeFair(const TenantTable* tenants) {
  return std::make_unique<Fair>(tenants);
}

}  // namespace fathom::scheduler
