#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "scheduler/core/wait_queue.h"
#include "scheduler/sessions/session_table.h"
#include "tests/sim/model.h"

namespace fathom::scheduler {
namespace {

constexpr TimeUs kModelWaitUs = 1000;
constexpr auto kAnybody = [](const Sequence&) { return true; };

class WaitQueueTest : public testing::Test {
 protected:
  // Kinds "a" and "b" have the same model, "x" has another one.
  static WaitQueue::Kind KindOf(const std::string& fingerprint) {
    if (fingerprint.empty()) return {};
    return {fingerprint, fingerprint == "x" ? "other" : "model"};
  }
  Sequence& Make(int32_t prompt_tokens = 1) {
    Record record;
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
  EXPECT_EQ(queue_.First(KindOf("a"), [&](const Sequence& s) { return &s != &second; }), &third);
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

TEST_F(WaitQueueTest, EqualsTheNaiveModel) {
  const uint64_t seed = sim::TestSeed(3);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const std::vector<std::string> lines = {"", "a", "b"};
  queue_.GroupUp(KindOf("a"), 0);
  queue_.GroupUp(KindOf("b"), 0);
  std::map<OrderKey, std::pair<Sequence*, std::string>> model;
  std::vector<Sequence*> idle;
  for (int i = 0; i < 40; ++i) idle.push_back(&Make(1 + static_cast<int32_t>(rng() % 5)));
  for (int i = 0; i < 5000; ++i) {
    if (!idle.empty() && rng() % 2 == 0) {
      Sequence& sequence = *idle.back();
      idle.pop_back();
      const OrderKey key{static_cast<int64_t>(rng() % 2), static_cast<int64_t>(rng() % 10),
                         sequence.number};
      const std::string& line = lines[rng() % 3];
      queue_.Push(sequence, key, KindOf(line), rng() % 2 == 0, 0);
      model[key] = {&sequence, line};
    } else if (!model.empty()) {
      auto it = std::next(model.begin(), static_cast<ptrdiff_t>(rng() % model.size()));
      queue_.Erase(*it->second.first, 0);
      idle.push_back(it->second.first);
      model.erase(it);
    }
    Sequence* expected = nullptr;
    for (const auto& [key, entry] : model) {
      if (entry.second == "b" || entry.first->session->prompt_tokens() == 3) continue;
      expected = entry.first;
      break;
    }
    ASSERT_EQ(queue_.First(KindOf("a"),
                           [](const Sequence& s) { return s.session->prompt_tokens() != 3; }),
              expected);
    ASSERT_EQ(queue_.size(), static_cast<int32_t>(model.size()));
    ASSERT_TRUE(queue_.Check().ok()) << ToString(queue_.Check());
  }
}

}  // namespace
}  // namespace fathom::scheduler
