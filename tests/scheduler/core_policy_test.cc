#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "scheduler/core/policy.h"
#include "tests/sim/model.h"

namespace fathom::scheduler {
namespace {

constexpr std::string_view kTenants[] = {"", "a", "b"};

SequenceFacts RandomFacts(std::mt19937_64& rng, uint64_t number) {
  return {.number = number,
          .tenant = kTenants[rng() % 3],
          .priority = static_cast<int32_t>(rng() % 3) - 1,
          .arrival_us = static_cast<TimeUs>(rng() % 4),
          .resumed = rng() % 2 == 0,
          .prompt_tokens = 1 + static_cast<int32_t>(rng() % 3),
          .max_tokens = 1 + static_cast<int32_t>(rng() % 3),
          .generated_tokens = 0};
}

// A queue like the core's: the sequence with the least key is admitted.
class Queue {
 public:
  explicit Queue(std::string_view policy) : policy_(MakePolicy(policy, &table)) {}
  TenantTable table;
  void Push(const SequenceFacts& facts) {
    Moves moves;
    const OrderKey place = policy_->Push(facts, &moves);
    EXPECT_TRUE(waiting_.emplace(place, facts).second);
    Apply(moves);
  }
  // REQUIRES: a sequence waits.
  SequenceFacts Admit() { return Pop(waiting_.begin(), true); }
  void Leave(uint64_t number) {
    Pop(std::ranges::find_if(waiting_, [&](const auto& e) { return e.second.number == number; }),
        false);
  }
  void End(const SequenceFacts& facts, const ComputedTokens& tokens) {
    Moves moves;
    policy_->Charge(facts, tokens, &moves);
    Apply(moves);
  }
  int32_t Ahead(const SequenceFacts& facts) const { return policy_->Ahead(facts); }
  const std::map<OrderKey, SequenceFacts>& waiting() const { return waiting_; }

 private:
  SequenceFacts Pop(std::map<OrderKey, SequenceFacts>::iterator place, bool admitted) {
    const SequenceFacts facts = place->second;
    waiting_.erase(place);
    Moves moves;
    policy_->Pop(facts, admitted, &moves);
    Apply(moves);
    return facts;
  }
  void Apply(const Moves& moves) {
    for (const Move& move : moves) {
      const auto from = waiting_.find(move.from);
      ASSERT_NE(from, waiting_.end());
      const SequenceFacts facts = from->second;
      waiting_.erase(from);
      EXPECT_EQ(move.to.number, facts.number);
      EXPECT_TRUE(waiting_.emplace(move.to, facts).second);
    }
  }
  const std::unique_ptr<Policy> policy_;
  std::map<OrderKey, SequenceFacts> waiting_;
};

TEST(Policy, TheDefaultIsFirst) {
  EXPECT_EQ(Policies().front().name, "fcfs");
  const TenantTable table;
  EXPECT_NE(MakePolicy("fcfs", &table), nullptr);
  EXPECT_EQ(MakePolicy("no-such", &table), nullptr);
  EXPECT_EQ(MakePolicy("", &table), nullptr);
  for (const PolicyRow& row : Policies()) EXPECT_NE(MakePolicy(row.name, &table), nullptr);
  for (const char* old : {"fair-share", "shortest-first"})
    EXPECT_NE(MakePolicy(old, &table), nullptr);
}

// The properties that the core relies on, for every policy.
TEST(Policy, KeysDifferAndResumedComeFirstAndTheEvictionOrderNeverChanges) {
  const uint64_t seed = sim::TestSeed(2);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  std::set<std::string> names;
  for (const PolicyRow& row : Policies()) {
    SCOPED_TRACE(std::string(row.name));
    EXPECT_TRUE(names.emplace(row.name).second);
    Queue queue(row.name);
    const TenantTable table;
    const std::unique_ptr<Policy> policy = row.make(&table);
    std::vector<SequenceFacts> running;
    for (uint64_t i = 1; i <= 5000; ++i) {
      queue.Push(RandomFacts(rng, i));  // Fails if two keys are equal.
      bool resumed = true;
      for (const auto& [place, facts] : queue.waiting()) {
        ASSERT_TRUE(resumed || !facts.resumed);
        resumed = facts.resumed;
      }
      if (rng() % 4 == 0) queue.Leave(queue.waiting().begin()->second.number);
      while (queue.waiting().size() > 20) running.push_back(queue.Admit());
      if (running.empty() || rng() % 4 == 0) continue;
      SequenceFacts ended = running.back();
      running.pop_back();
      queue.End(ended, {static_cast<int64_t>(rng() % 4), static_cast<int64_t>(rng() % 4)});
      const OrderKey eviction = policy->EvictionOrder(ended);
      ended.resumed = true;
      ended.generated_tokens += 5;
      ASSERT_EQ(policy->EvictionOrder(ended), eviction);
      if (rng() % 2 == 0) queue.Push(ended);
    }
  }
}

TEST(Policy, FcfsIsByArrival) {
  Queue queue("fcfs");
  const SequenceFacts early{.number = 9, .arrival_us = 1, .prompt_tokens = 100};
  const SequenceFacts late{.number = 3, .arrival_us = 2, .prompt_tokens = 1};
  queue.Push(late);
  queue.Push(early);
  EXPECT_EQ(queue.Admit().number, early.number);
  const TenantTable table;
  const std::unique_ptr<Policy> fcfs = MakePolicy("fcfs", &table);
  EXPECT_LT(fcfs->EvictionOrder(early), fcfs->EvictionOrder(late));
}

TEST(Policy, ShortestPromptOvertakesWithinItsLengthOnly) {
  const SequenceFacts lengthy{
      .number = 1, .arrival_us = 0, .prompt_tokens = 900, .max_tokens = 100};
  SequenceFacts brief{.number = 2, .arrival_us = 894'999, .prompt_tokens = 5, .max_tokens = 4096};
  const auto first = [&] {
    Queue queue("shortest-prompt");
    queue.Push(lengthy);
    queue.Push(brief);
    return queue.Admit().number;
  };
  EXPECT_EQ(first(), brief.number);
  brief.arrival_us = 895'001;
  EXPECT_EQ(first(), lengthy.number);
}

// Every policy: the more urgent of two that came together is first, and urgent requests that come
// without end keep another one waiting for no longer than the bound.
TEST(Policy, PriorityComesFirstAndStarvesNobody) {
  for (const PolicyRow& row : Policies()) {
    SCOPED_TRACE(std::string(row.name));
    const int64_t class_us = row.name == "priority" ? 600'000'000 : kClassUs;
    for (const int32_t classes : {1, 3, 2 * kClassMax, 1'000'000}) {
      Queue queue(row.name);
      const SequenceFacts patient{.number = 1, .priority = classes / 2, .arrival_us = 5};
      const int32_t urgent = patient.priority - classes;
      queue.Push(patient);
      queue.Push({.number = 2, .priority = urgent, .arrival_us = 5});
      EXPECT_EQ(queue.Admit().number, 2u);
      // One arrival in each tenth of a class, and one admission.
      const int64_t bound_us = std::min(classes, 2 * kClassMax) * class_us;
      uint64_t number = 2;
      TimeUs now = 5;
      do {
        now += class_us / 10;
        queue.Push({.number = ++number, .priority = urgent, .arrival_us = now});
      } while (queue.Admit().number != 1);
      EXPECT_GE(now, bound_us);
      EXPECT_LE(now, 5 + bound_us + class_us / 10);
    }
  }
}

// Ahead is never more than the sequences that are admitted before a new one.
TEST(Policy, AheadIsALowerBound) {
  const uint64_t seed = sim::TestSeed(5);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  for (const PolicyRow& row : Policies()) {
    SCOPED_TRACE(std::string(row.name));
    int64_t forecast = 0;
    for (uint64_t round = 0; round < 200; ++round) {
      Queue queue(row.name);
      uint64_t number = 0;
      const auto facts = [&](TimeUs arrival_us) {
        SequenceFacts each = RandomFacts(rng, ++number);
        each.resumed = rng() % 5 == 0;
        each.arrival_us = arrival_us;
        return each;
      };
      for (TimeUs at = 0; at < 40; ++at) queue.Push(facts(at));
      SequenceFacts last = facts(40);
      last.resumed = false;
      const int32_t ahead = queue.Ahead(last);
      forecast += ahead;
      queue.Push(last);
      int32_t before = 0;
      while (true) {
        const SequenceFacts admitted = queue.Admit();
        if (admitted.number == last.number) break;
        ++before;
        queue.End(admitted, {1, 1});
      }
      ASSERT_LE(ahead, before);
    }
    // The bound is worth something where the order of arrival counts.
    if (row.name == "fcfs" || row.name == "fair") {
      EXPECT_GT(forecast, 200 * 5);
    }
  }
}

// Each tenant gets a share of the cost that is proportional to its weight.
TEST(Policy, FairDividesByWeight) {
  Queue queue("fair");
  queue.table.tenants["a"].weight = 3;
  uint64_t number = 0;
  std::map<std::string_view, int64_t> served;
  const auto push = [&](std::string_view tenant) {
    queue.Push({.number = ++number, .tenant = tenant, .prompt_tokens = 100, .max_tokens = 50});
  };
  for (int i = 0; i < 5; ++i) push("a"), push("b");
  for (int i = 0; i < 4000; ++i) {
    const SequenceFacts facts = queue.Admit();
    push(facts.tenant);
    served[facts.tenant] += 1;
    queue.End(facts, {100, 50});
  }
  EXPECT_NEAR(static_cast<double>(served["a"]) / static_cast<double>(served["b"]), 3.0, 0.01);
  queue.table.tenants["a"].weight = 1;  // As when the operator changes the file.
  served.clear();
  for (int i = 0; i < 4000; ++i) {
    const SequenceFacts facts = queue.Admit();
    push(facts.tenant);
    served[facts.tenant] += 1;
    queue.End(facts, {100, 50});
  }
  EXPECT_NEAR(static_cast<double>(served["a"]) / static_cast<double>(served["b"]), 1.0, 0.01);
}

// A tenant that calls all of its requests urgent gets no larger share.
TEST(Policy, PriorityTakesNothingFromOtherTenantsUnderFair) {
  Queue queue("fair");
  uint64_t number = 0;
  std::map<std::string_view, int> served;
  const auto push = [&](std::string_view tenant) {
    queue.Push({.number = ++number,
                .tenant = tenant,
                .priority = tenant == "a" ? -kClassMax : 0,
                .prompt_tokens = 10,
                .max_tokens = 10});
  };
  for (int i = 0; i < 5; ++i) push("a"), push("b");
  for (int i = 0; i < 1000; ++i) {
    const SequenceFacts facts = queue.Admit();
    push(facts.tenant);
    ++served[facts.tenant];
    queue.End(facts, {10, 10});
  }
  EXPECT_EQ(served["a"], served["b"]);
}

TEST(Policy, FairTakesTurnsByTheCostOfTokens) {
  Queue queue("fair");
  queue.table.decode_cost = 1;
  uint64_t number = 0;
  const auto push = [&](std::string_view tenant, int32_t tokens) {
    queue.Push(
        {.number = ++number, .tenant = tenant, .prompt_tokens = tokens - 1, .max_tokens = 1});
  };
  std::map<std::string_view, int64_t> served;
  const auto admit = [&] {
    const SequenceFacts facts = queue.Admit();
    const int64_t tokens = int64_t{facts.prompt_tokens} + facts.max_tokens;
    served[facts.tenant] += tokens;
    queue.End(facts, {tokens, 0});
    return facts.tenant;
  };
  // A flood of one tenant, and two tenants that come later with requests of other sizes.
  for (int i = 0; i < 1000; ++i) push("flood", 100);
  for (int i = 0; i < 30; ++i) push("a", 100);
  for (int i = 0; i < 15; ++i) push("b", 200);
  while (served["a"] < 3000 || served["b"] < 3000) {
    admit();
    // The difference never exceeds the largest request.
    ASSERT_LE(std::abs(served["a"] - served["b"]), 200);
    ASSERT_LE(std::abs(served["a"] - served["flood"]), 200);
  }
  // A tenant that was idle has no credit: its requests take turns with those of the flood.
  for (int i = 0; i < 100; ++i) admit();
  for (int i = 0; i < 10; ++i) push("a", 100);
  int of_a = 0;
  for (int i = 0; i < 10; ++i) of_a += admit() == "a" ? 1 : 0;
  EXPECT_EQ(of_a, 5);
}

// Tenants that always have requests waiting, in a flood or one more for each that ends, and of whom
// some ask for many more tokens than their answers have. A server of `kSlots` slots computes a
// token of each running sequence in each step.
TEST(Policy, FairIsFairInComputedTokensWhateverMaxTokensSay) {
  const uint64_t seed = sim::TestSeed(4);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  struct Tenant {
    std::string_view name;
    int32_t max_tokens, answer;  // What each request says, and how many tokens its answer has.
    int32_t flood;               // Requests that wait at the same time.
    int64_t computed = 0;        // Cost of the tokens.
  };
  Tenant tenants[] = {{"exact", 50, 50, 500},
                      {"liar", 4096, 10, 500},
                      {"random", 1000, 0, 3},
                      {"two", 4096, 30, 2}};
  constexpr size_t kSlots = 8;
  constexpr int64_t kAskedMax = 2 * 4096 + 100;  // Their cost.
  Queue queue("fair");
  uint64_t number = 0;
  const auto push = [&](const Tenant& tenant) {
    queue.Push({.number = ++number,
                .tenant = tenant.name,
                .prompt_tokens = 1 + static_cast<int32_t>(rng() % 100),
                .max_tokens = tenant.max_tokens});
  };
  for (const Tenant& tenant : tenants) {
    for (int32_t i = 0; i < tenant.flood; ++i) push(tenant);
  }
  struct Running {
    SequenceFacts facts;
    int64_t tokens = 0;
    int32_t left = 0;
  };
  std::vector<Running> running;
  for (int step = 0; step < 100'000; ++step) {
    while (running.size() < kSlots) {
      const SequenceFacts facts = queue.Admit();
      Tenant& tenant = *std::ranges::find(tenants, facts.tenant, &Tenant::name);
      push(tenant);
      const int32_t answer =
          tenant.answer > 0 ? tenant.answer : 1 + static_cast<int32_t>(rng() % 1000);
      running.push_back({facts, facts.prompt_tokens, answer});
    }
    std::erase_if(running, [&](Running& each) {
      ++each.tokens;
      if (--each.left > 0) return false;
      const ComputedTokens computed{each.facts.prompt_tokens,
                                    each.tokens - each.facts.prompt_tokens};
      std::ranges::find(tenants, each.facts.tenant, &Tenant::name)->computed +=
          computed.prefill + 2 * computed.decode;
      queue.End(each.facts, computed);
      return true;
    });
    const auto [least, most] = std::ranges::minmax(tenants, {}, &Tenant::computed);
    ASSERT_LE(most.computed - least.computed, int64_t{kSlots + 1} * kAskedMax) << "step " << step;
  }
  for (const Tenant& tenant : tenants) EXPECT_GT(tenant.computed, 200'000) << tenant.name;
}

}  // namespace
}  // namespace fathom::scheduler
