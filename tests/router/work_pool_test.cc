// The pool shares its threads' time fairly between clients, and calls that have ended take none.
#include "router/api/work_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <map>
#include <random>

#include "tests/text/text_support.h"

namespace fathom::router {
namespace {

using Queue = FairQueue<int>;

TEST(FairQueue, OneClientIsServedInOrder) {
  Queue queue(4);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(queue.Push("a", i), std::nullopt);
  EXPECT_EQ(queue.Push("a", 4), 4);  // The queue is full.
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(queue.Pop(i)->item, i);
    queue.Done("a", i, i + 1);
  }
  EXPECT_EQ(queue.Pop(9), std::nullopt);
  EXPECT_EQ(queue.clients(), 0u);
}

// For any number and length of the items of a client: while both clients have waiting items,
// neither gets ahead of the other by more than the two longest items.
TEST(FairQueue, TimeIsSharedWhateverTheItemsCost) {
  Random random(TestSeed());
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  for (int run = 0; run < 200; ++run) {
    Queue queue(64);
    const int64_t cost_max[2] = {1 + static_cast<int64_t>(random() % 100),
                                 1 + static_cast<int64_t>(random() % 10'000)};
    const std::string names[2] = {"light", "heavy"};
    int64_t used[2] = {};
    size_t waiting[2] = {};
    TimeUs now = 1;
    for (int step = 0; step < 500; ++step) {
      for (int c = 0; c < 2; ++c) {
        for (; waiting[c] < (c == 0 ? 1u : 20u); ++waiting[c]) {
          ASSERT_EQ(queue.Push(names[c], c), std::nullopt);
        }
      }
      const auto taken = queue.Pop(now);
      const int c = taken->item;
      const int64_t cost = 1 + static_cast<int64_t>(random() % cost_max[c]);
      queue.Done(taken->client, now, now + cost);
      now += cost;
      used[c] += cost;
      --waiting[c];
      ASSERT_LE(std::abs(used[0] - used[1]), cost_max[0] + cost_max[1]);
    }
  }
}

TEST(FairQueue, WhatRunsCountsWhileItRuns) {
  Queue queue(8);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(queue.Push("a", i), std::nullopt);
  ASSERT_EQ(queue.Pop(0)->client, "a");
  ASSERT_EQ(queue.Push("b", 7), std::nullopt);
  EXPECT_EQ(queue.Pop(5)->client, "b");  // "a" has used 5 so far.
  EXPECT_EQ(queue.Pop(20)->client, "a");
}

TEST(FairQueue, NobodySavesTimeUp) {
  Queue queue(64);
  for (int i = 0; i < 20; ++i) ASSERT_EQ(queue.Push("a", 0), std::nullopt);
  TimeUs now = 0;
  const auto serve = [&] {
    const std::string client = queue.Pop(now)->client;
    queue.Done(client, now, now + 10);
    now += 10;
    return client;
  };
  for (int i = 0; i < 10; ++i) EXPECT_EQ(serve(), "a");
  for (int i = 0; i < 5; ++i) ASSERT_EQ(queue.Push("b", 0), std::nullopt);
  std::map<std::string, int> served;
  for (int i = 0; i < 8; ++i) ++served[serve()];
  EXPECT_NEAR(served["a"], 4, 1);  // The time in which "b" was idle does not count.
}

TEST(FairQueue, AFullQueueHasRoomForAnotherClient) {
  Queue queue(3);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(queue.Push("a", i), std::nullopt);
  EXPECT_EQ(queue.Push("b", 10), 2);   // The newest item of the client with the most items.
  EXPECT_EQ(queue.Push("b", 11), 11);  // Both clients have equally many.
  EXPECT_EQ(queue.waiting(), 3u);
}

TEST(FairQueue, ManyClientsLeaveNothingBehind) {
  Queue queue(2);
  for (int i = 0; i < 20'000; ++i) {
    const std::string client = std::to_string(i);
    ASSERT_EQ(queue.Push(client, i), std::nullopt);
    if (i == 0) continue;  // One item always waits, so the queue is never idle.
    const auto taken = queue.Pop(i);
    queue.Done(taken->client, i, i + 1 + i % 1000);
  }
  EXPECT_LE(queue.clients(), 4097u);
}

class Pool : public ::testing::Test {
 protected:
  // Keeps the only thread of the pool busy until `release_` counts down.
  void Occupy(WorkPool* pool) {
    pool->Run({.client = "busy",
               .cancelled = {},
               .run =
                   [this] {
                     occupied_.count_down();
                     release_.wait();
                   },
               .drop = [](WorkDrop, int64_t) { FAIL(); }});
    occupied_.wait();
  }
  Work Counted(const std::string& client, CancelFn cancelled = {}) {
    return {.client = client,
            .cancelled = std::move(cancelled),
            .run = [this] { ++run_; },
            .drop =
                [this](WorkDrop why, int64_t retry_after_ms) {
                  ++dropped_[static_cast<int>(why)];
                  EXPECT_EQ(retry_after_ms > 0, why == WorkDrop::kFull);
                }};
  }
  int dropped(WorkDrop why) { return dropped_[static_cast<int>(why)]; }

  RealClock clock_;
  std::latch occupied_{1}, release_{1};
  std::atomic<int> run_ = 0;
  std::atomic<int> dropped_[3] = {};
};

TEST_F(Pool, CancelledWorkIsDroppedAndMakesRoom) {
  std::atomic<bool> gone = false;
  {
    WorkPool pool(1, 4, &clock_);
    Occupy(&pool);
    for (int i = 0; i < 4; ++i) pool.Run(Counted("a", [&] { return gone.load(); }));
    pool.Run(Counted("a"));
    EXPECT_EQ(dropped(WorkDrop::kFull), 1);
    gone = true;
    std::latch ran(1);
    pool.Run({.client = "a", .cancelled = {}, .run = [&] { ran.count_down(); }, .drop = {}});
    EXPECT_EQ(dropped(WorkDrop::kCancelled), 4);
    release_.count_down();
    ran.wait();
  }
  EXPECT_EQ(run_, 0);
}

TEST_F(Pool, WorkCancelledWhileItWaitsIsNotRun) {
  std::atomic<bool> gone = false;
  {
    WorkPool pool(1, 4, &clock_);
    Occupy(&pool);
    pool.Run(Counted("a", [&] { return gone.load(); }));
    gone = true;
    std::latch ran(1);
    pool.Run({.client = "a", .cancelled = {}, .run = [&] { ran.count_down(); }, .drop = {}});
    release_.count_down();
    ran.wait();
    EXPECT_EQ(dropped(WorkDrop::kCancelled), 1);
  }
  EXPECT_EQ(run_, 0);
}

TEST_F(Pool, EveryWorkIsRunOrDroppedOnce) {
  constexpr int kWorks = 2000;
  Random random(TestSeed());
  {
    WorkPool pool(3, 16, &clock_);
    for (int i = 0; i < kWorks; ++i) {
      CancelFn cancelled;
      if (random() % 4 == 0) cancelled = [] { return true; };
      pool.Run(Counted(std::to_string(random() % 5), cancelled));
    }
  }
  EXPECT_EQ(run_ + dropped_[0] + dropped_[1] + dropped_[2], kWorks);
  release_.count_down();
}

}  // namespace
}  // namespace fathom::router
