// Which terms may begin and end epochs: the highest term is obeyed, at most one epoch is alive, and
// every thread that waits in an epoch learns of its end.
#include "worker/cluster/membership.h"

#include <gtest/gtest.h>

#include <thread>

namespace fathom::worker {
namespace {

GroupSeat SeatOf(uint64_t term, uint64_t epoch) {
  GroupSeat seat;
  seat.term = {term};
  seat.epoch = {epoch};
  return seat;
}

TEST(Membership, TheTermNeverGoesBack) {
  Membership membership;
  EXPECT_EQ(membership.Hear({4}), TermVerdict::kObeyed);
  EXPECT_EQ(membership.Hear({4}), TermVerdict::kObeyed);
  EXPECT_EQ(membership.Hear({3}), TermVerdict::kStale);
  EXPECT_EQ(membership.term(), TermId{4});
  EXPECT_EQ(membership.Hear({7}), TermVerdict::kObeyed);
  membership.Join(SeatOf(4, 1), 0);  // A higher term has come since this one was heard.
  membership.Join(SeatOf(7, 2), 0);
  EXPECT_EQ(membership.Next()->seat().epoch, EpochId{2});
}

TEST(Membership, AHigherTermANewSeatAnAbortAndALostStreamEndTheEpoch) {
  Membership membership;
  ASSERT_EQ(membership.Hear({1}), TermVerdict::kObeyed);
  membership.Join(SeatOf(1, 1), 0);
  const auto first = membership.Next();
  membership.Join(SeatOf(1, 2), 0);
  EXPECT_TRUE(first->aborted());
  const auto second = membership.Next();
  EXPECT_EQ(second->seat().epoch, EpochId{2});
  membership.Abort({1}, {1}, "old");  // Another epoch.
  EXPECT_FALSE(second->aborted());
  membership.Abort({1}, {2}, "rank 1 is gone");
  EXPECT_TRUE(second->aborted());
  EXPECT_NE(Message(second->status()).find("rank 1 is gone"), std::string_view::npos);
  membership.Join(SeatOf(1, 3), 1);
  const auto third = membership.Next();
  membership.Lose(0, "another stream");
  EXPECT_FALSE(third->aborted());
  membership.Lose(1, "its stream");
  EXPECT_TRUE(third->aborted());
  membership.Join(SeatOf(1, 4), 0);
  const auto fourth = membership.Next();
  ASSERT_EQ(membership.Hear({2}), TermVerdict::kObeyed);
  EXPECT_TRUE(fourth->aborted());
}

TEST(Membership, NextSkipsWhatWasReplacedAndEndsWithClose) {
  Membership membership;
  ASSERT_EQ(membership.Hear({1}), TermVerdict::kObeyed);
  membership.Join(SeatOf(1, 1), 0);
  membership.Join(SeatOf(1, 2), 0);
  EXPECT_EQ(membership.Next()->seat().epoch, EpochId{2});
  std::thread waiter([&] { EXPECT_EQ(membership.Next(), nullptr); });
  membership.Close();
  waiter.join();
  membership.Join(SeatOf(1, 3), 0);
  EXPECT_EQ(membership.Next(), nullptr);
}

TEST(Epoch, CallbacksRunOnceAndAtOnceWhenItIsOver) {
  Epoch epoch(SeatOf(1, 1), 0);
  int kept = 0, forgotten = 0, late = 0;
  epoch.OnAbort([&] { ++kept; });
  epoch.Forget(epoch.OnAbort([&] { ++forgotten; }));
  epoch.Abort(Aborted("first"));
  epoch.Abort(Aborted("second"));
  epoch.OnAbort([&] { ++late; });
  EXPECT_EQ(kept, 1);
  EXPECT_EQ(forgotten, 0);
  EXPECT_EQ(late, 1);
  EXPECT_EQ(Message(epoch.status()), "first");
}

TEST(Epoch, ExchangesAreFoundByRoundAndRankWhateverTheirOrder) {
  Membership membership;
  ASSERT_EQ(membership.Hear({1}), TermVerdict::kObeyed);
  membership.Join(SeatOf(1, 5), 0);
  const auto epoch = membership.Next();
  membership.PushExchange({4}, {0, 0, "old"});
  membership.PushExchange({5}, {1, 0, "later"});
  std::thread waiter(
      [&] { EXPECT_EQ(*epoch->WaitExchange(0, 0, std::chrono::seconds(60)), "name"); });
  membership.PushExchange({5}, {0, 0, "name"});
  waiter.join();
  EXPECT_EQ(*epoch->WaitExchange(1, 0, std::chrono::seconds(60)), "later");
  EXPECT_EQ(epoch->WaitExchange(2, 0, std::chrono::milliseconds(1)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  std::thread aborted([&] {
    EXPECT_EQ(epoch->WaitExchange(2, 0, std::chrono::seconds(60)).status().code(),
              absl::StatusCode::kAborted);
  });
  membership.Abort({1}, {5}, "over");
  aborted.join();
}

TEST(Epoch, AFloodOfExchangesEndsIt) {
  Epoch epoch(SeatOf(1, 1), 0);
  for (size_t i = 0; i < Epoch::kExchangesMax; ++i) epoch.PushExchange({0, 0, "x"});
  EXPECT_FALSE(epoch.aborted());
  epoch.PushExchange({0, 0, "x"});
  EXPECT_TRUE(epoch.aborted());
}

}  // namespace
}  // namespace fathom::worker
