#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "scheduler/core/wait_queue.h"
#include "scheduler/sessions/session_table.h"
#include "tests/sim/model.h"

namespace fathom::scheduler {
namespace {

constexpr TimeUs kModelWaitUs = 1000;
using Verdict = WaitQueue::Verdict;
constexpr auto kAnybody = [](const Sequence&) { return Verdict::kTake; };

class WaitQueueTest : public testing::Test {
 protected:
  // Kinds "a" and "b" have the same model, "x" has another one.
  static WaitQueue::Kind KindOf(const std::string& fingerprint) {
    if (fingerprint.empty()) return {};
    return {fingerprint, fingerprint == "x" ? "other" : "model"};
  }
  Sequence& Make(int32_t prompt_tokens = 1, const std::string& tenant = "") {
    Record record;
    record.key.tenant = tenant;
    record.key.request_id = std::to_string(++made_);
    record.prompt_ids.assign(static_cast<size_t>(prompt_tokens), 1);
    return sessions_.Create(std::move(record), "").sequences[0];
  }
  void Push(Sequence& sequence, int64_t value, const std::string& fingerprint, TimeUs now = 0) {
    queue_.Push(sequence, {0, value, sequence.number}, KindOf(fingerprint), true, now);
  }

  SessionTable sessions_;
  WaitQueue queue_{kModelWaitUs};
  int made_ = 0;
};

TEST_F(WaitQueueTest, AGroupSeesItsOwnLineAndTheCommonOneInOneOrder) {
  queue_.GroupUp(KindOf("a"), 0);
  Sequence &first = Make(), &second = Make(), &third = Make();
  Push(third, 3, "a");
  Push(first, 1, "b");
  Push(second, 2, "");
  EXPECT_EQ(queue_.First(KindOf("a"), kAnybody), &second);
  EXPECT_EQ(queue_.First(KindOf("b"), kAnybody), &first);
  EXPECT_EQ(queue_.First(
                KindOf("a"),
                [&](const Sequence& s) { return &s != &second ? Verdict::kTake : Verdict::kPass; }),
            &third);
  queue_.Erase(second, 0);
  EXPECT_EQ(queue_.First(KindOf("a"), kAnybody), &third);
  EXPECT_EQ(queue_.First(KindOf("c"), kAnybody), nullptr);
}

TEST_F(WaitQueueTest, ALineWithoutGroupsGivesUpAfterItsTime) {
  queue_.GroupUp(KindOf("a"), 0);
  queue_.GroupUp(KindOf("b"), 0);
  Sequence& sequence = Make();
  Push(sequence, 1, "a");
  EXPECT_EQ(queue_.NextTimeUs(), INT64_MAX);
  queue_.GroupDown(KindOf("a"), 100);
  EXPECT_EQ(queue_.NextTimeUs(), 100 + kModelWaitUs);
  queue_.Expire(99 + kModelWaitUs);
  EXPECT_EQ(queue_.First(KindOf("b"), kAnybody), nullptr);
  queue_.Expire(100 + kModelWaitUs);
  EXPECT_EQ(queue_.First(KindOf("b"), kAnybody), &sequence);
  EXPECT_EQ(queue_.First(KindOf("x"), kAnybody), nullptr);
  EXPECT_TRUE(queue_.Check().ok());
}

TEST_F(WaitQueueTest, ASequenceWhoseModelWasReplacedIsHandedOutAfterTheWait) {
  queue_.GroupUp(KindOf("a"), 0);
  Sequence& sequence = Make();
  Push(sequence, 1, "a");
  queue_.GroupDown(KindOf("a"), 100);
  EXPECT_TRUE(queue_.Expire(100 + 5 * kModelWaitUs).empty());  // Nothing replaced it.
  queue_.GroupUp(KindOf("x"), 1000 + 5 * kModelWaitUs);
  EXPECT_EQ(queue_.NextTimeUs(), 1000 + 6 * kModelWaitUs);
  EXPECT_TRUE(queue_.Expire(999 + 6 * kModelWaitUs).empty());
  EXPECT_EQ(queue_.First(KindOf("x"), kAnybody), nullptr);
  EXPECT_EQ(queue_.Expire(1000 + 6 * kModelWaitUs), std::vector<Sequence*>{&sequence});
  queue_.GroupUp(KindOf("b"), 1000 + 6 * kModelWaitUs);  // Of its model after all.
  EXPECT_TRUE(queue_.Expire(1000 + 9 * kModelWaitUs).empty());
  EXPECT_EQ(queue_.First(KindOf("b"), kAnybody), &sequence);
  EXPECT_TRUE(queue_.Check().ok()) << ToString(queue_.Check());
  queue_.Erase(sequence, 1000 + 9 * kModelWaitUs);
  EXPECT_EQ(queue_.NextTimeUs(), INT64_MAX);
}

TEST_F(WaitQueueTest, AGroupThatComesBackInTimeKeepsItsLine) {
  Sequence& sequence = Make();
  Push(sequence, 1, "a", 100);
  queue_.GroupUp(KindOf("a"), 0);
  queue_.Expire(100 + 2 * kModelWaitUs);
  EXPECT_EQ(queue_.First(KindOf("b"), kAnybody), nullptr);
  EXPECT_EQ(queue_.First(KindOf("a"), kAnybody), &sequence);
}

TEST_F(WaitQueueTest, AVerdictMayStop) {
  Sequence &first = Make(), &second = Make();
  Push(first, 1, "a");
  Push(second, 2, "");
  const auto stops = [&](const Sequence& s) {
    return &s == &first ? Verdict::kStop : Verdict::kTake;
  };
  EXPECT_EQ(queue_.First(KindOf("a"), stops), nullptr);
  EXPECT_EQ(queue_.First(KindOf("b"), stops), &second);
}

// A sequence of a held tenant waits for kTenantRunning as long as it is held, and its clocks add up
// to its wait; the others wait for what the line waits for.
TEST_F(WaitQueueTest, TheTimeInWhichATenantIsHeldCountsForIt) {
  const WaitQueue::Kind kind = KindOf("a");
  queue_.GroupUp(kind, 0);
  Sequence &held = Make(1, "h"), &late = Make(1, "h"), &other = Make();
  Push(held, 1, "", 0);
  Push(other, 2, "", 0);
  queue_.NoteLimits({{&kind, WaitLimit::kSlots}}, 0);
  queue_.Hold("h", true, 10);
  EXPECT_EQ(queue_.First(kind, kAnybody), &other);
  Push(late, 3, "", 30);
  queue_.NoteLimits({{&kind, WaitLimit::kBlocks}}, 40);
  EXPECT_EQ(queue_.CountByLimit(), (std::array<int32_t, kWaitLimits>{0, 1, 0, 0, 2}));
  queue_.Hold("h", true, 45);  // Nothing new.
  queue_.Hold("h", false, 60);
  EXPECT_EQ(queue_.First(kind, kAnybody), &held);
  EXPECT_EQ(queue_.WaitedUs(held, 100), (WaitTimes{10, 40, 0, 0, 50}));
  EXPECT_EQ(queue_.WaitedUs(late, 100), (WaitTimes{0, 40, 0, 0, 30}));
  EXPECT_EQ(queue_.WaitedUs(other, 100), (WaitTimes{40, 60, 0, 0, 0}));
  queue_.Hold("h", true, 100);
  EXPECT_EQ(queue_.WaitedUs(held, 107), (WaitTimes{10, 40, 0, 0, 57}));
  EXPECT_TRUE(queue_.Check().ok()) << ToString(queue_.Check());
}

TEST_F(WaitQueueTest, EqualsTheNaiveModel) {
  const uint64_t seed = sim::TestSeed(3);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const std::vector<std::string> lines = {"", "a", "b"};
  queue_.GroupUp(KindOf("a"), 0);
  queue_.GroupUp(KindOf("b"), 0);
  std::map<OrderKey, std::pair<Sequence*, std::string>> model;
  std::vector<Sequence*> idle;
  const std::string tenants[] = {"", "t", "u"};
  std::set<std::string> held;
  for (int i = 0; i < 40; ++i) {
    idle.push_back(&Make(1 + static_cast<int32_t>(rng() % 5), tenants[rng() % 3]));
  }
  TimeUs now = 0;
  for (int i = 0; i < 5000; ++i) {
    now += static_cast<TimeUs>(rng() % 3);
    if (rng() % 10 == 0) {
      const std::string& tenant = tenants[rng() % 3];
      const bool hold = rng() % 2 == 0;
      hold ? (void)held.insert(tenant) : (void)held.erase(tenant);
      queue_.Hold(tenant, hold, now);
    }
    if (!model.empty() && rng() % 3 == 0) {  // Moved, as a policy does.
      auto it = std::next(model.begin(), static_cast<ptrdiff_t>(rng() % model.size()));
      const OrderKey to{static_cast<int64_t>(rng() % 2), static_cast<int64_t>(rng() % 10),
                        it->first.number};
      queue_.Reorder(it->first, to);
      const auto entry = it->second;
      model.erase(it);
      model[to] = entry;
    }
    if (!idle.empty() && rng() % 2 == 0) {
      Sequence& sequence = *idle.back();
      idle.pop_back();
      const OrderKey key{static_cast<int64_t>(rng() % 2), static_cast<int64_t>(rng() % 10),
                         sequence.number};
      const std::string& line = lines[rng() % 3];
      queue_.Push(sequence, key, KindOf(line), rng() % 2 == 0, now);
      model[key] = {&sequence, line};
    } else if (!model.empty()) {
      auto it = std::next(model.begin(), static_cast<ptrdiff_t>(rng() % model.size()));
      queue_.Erase(*it->second.first, now);
      idle.push_back(it->second.first);
      model.erase(it);
    }
    Sequence* expected = nullptr;
    for (const auto& [key, entry] : model) {
      if (entry.second == "b" || entry.first->session->prompt_tokens() == 3 ||
          held.contains(entry.first->session->record.key.tenant)) {
        continue;
      }
      expected = entry.first;
      break;
    }
    ASSERT_EQ(queue_.First(KindOf("a"),
                           [](const Sequence& s) {
                             return s.session->prompt_tokens() != 3 ? Verdict::kTake
                                                                    : Verdict::kPass;
                           }),
              expected);
    ASSERT_EQ(queue_.size(), static_cast<int32_t>(model.size()));
    ASSERT_TRUE(queue_.Check().ok()) << ToString(queue_.Check());
  }
}

}  // namespace
}  // namespace fathom::scheduler
