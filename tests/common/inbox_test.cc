#include "common/inbox.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace fathom {
namespace {

TEST(Inbox, FullSaysSoAndLeavesTheItem) {
  Inbox<std::unique_ptr<int>> inbox(1);
  EXPECT_TRUE(inbox.TryPush(std::make_unique<int>(1)));
  auto second = std::make_unique<int>(2);
  EXPECT_FALSE(inbox.TryPush(std::move(second)));
  EXPECT_NE(second, nullptr);
  EXPECT_EQ(**inbox.Pop(), 1);
}

TEST(Inbox, CloseLetsTheRestOutAndNothingIn) {
  Inbox<int> inbox(4);
  EXPECT_TRUE(inbox.TryPush(7));
  inbox.Close();
  EXPECT_FALSE(inbox.TryPush(8));
  EXPECT_EQ(inbox.Pop(), 7);
  EXPECT_EQ(inbox.Pop(), std::nullopt);
  EXPECT_EQ(inbox.PopFor(std::chrono::microseconds(10)), std::nullopt);
}

TEST(Inbox, ManySendersEachInTheirOrder) {
  constexpr int kSenders = 4, kEach = 2000;
  Inbox<std::pair<int, int>> inbox(16);
  std::vector<std::jthread> senders;
  for (int s = 0; s < kSenders; ++s) {
    senders.emplace_back([&inbox, s] {
      for (int i = 0; i < kEach; ++i) {
        while (!inbox.TryPush({s, i})) std::this_thread::yield();
      }
    });
  }
  std::vector<int> next(kSenders, 0);
  for (int n = 0; n < kSenders * kEach; ++n) {
    const auto item = inbox.Pop();
    ASSERT_TRUE(item.has_value());
    ASSERT_EQ(item->second, next[item->first]++);
  }
  EXPECT_EQ(inbox.size(), 0u);
}

}  // namespace
}  // namespace fathom
