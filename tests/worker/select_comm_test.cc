#include "worker/comm/select_comm.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>

namespace fathom::worker {
namespace {

constexpr CommFacts kPeer = {.peer = true, .nccl = false};
constexpr CommFacts kNccl = {.peer = false, .nccl = true};
constexpr CommFacts kBoth = {.peer = true, .nccl = true};

TEST(SelectComm, ASmallMessageIsSummedByEveryRank) {
  for (const int ranks : {2, 4, 8}) {
    EXPECT_EQ(SelectComm(ranks, 8192, kBoth), CommWay::kPush) << ranks;
    EXPECT_EQ(SelectComm(ranks, 16 * 1024, kPeer), CommWay::kPush) << ranks;
    EXPECT_EQ(SelectComm(ranks, 128 * 1024, kPeer), CommWay::kOneShot) << ranks;
  }
  for (const int ranks : {3, 5, 6, 7}) {  // The one-shot kernel has no instance.
    EXPECT_EQ(SelectComm(ranks, 8192, kBoth), CommWay::kTwoShot) << ranks;
  }
}

TEST(SelectComm, TheWayOnlyGrowsWithTheSize) {
  for (int ranks = 2; ranks <= 8; ++ranks) {
    for (const CommFacts& facts : {kPeer, kNccl, kBoth}) {
      CommWay last = CommWay::kPush;
      for (int64_t bytes = 0; bytes <= int64_t{1} << 30; bytes = bytes * 2 + 16) {
        const auto way = SelectComm(ranks, bytes, facts);
        ASSERT_TRUE(way);
        EXPECT_GE(*way, last) << ranks << " ranks, " << bytes << " bytes";
        last = *way;
      }
      EXPECT_EQ(last, facts.nccl ? CommWay::kNccl : CommWay::kTwoShot);
    }
  }
}

TEST(SelectComm, OnlyWaysThatTheGroupHas) {
  for (const int64_t bytes : {0, 8192, 1 << 30}) {
    EXPECT_EQ(SelectComm(2, bytes, kNccl), CommWay::kNccl);
    EXPECT_EQ(SelectComm(16, bytes, kBoth), CommWay::kNccl);  // Peer memory is for 8 ranks.
    EXPECT_EQ(SelectComm(16, bytes, kPeer), std::nullopt);
    EXPECT_EQ(SelectComm(2, bytes, {}), std::nullopt);
    EXPECT_EQ(SelectComm(1, bytes, kPeer), std::nullopt);
  }
  EXPECT_STREQ(NameOf(CommWay::kOneShot), "one-shot");
}

}  // namespace
}  // namespace fathom::worker
