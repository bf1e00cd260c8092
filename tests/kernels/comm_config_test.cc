#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "kernels/cuda/comm/all_reduce_config.h"
#include "kernels/cuda/comm/peer_region.h"

namespace fathom::kernels::cuda {
namespace {

TEST(AllReduceConfig, OneShotSumsWholeRows) {
  for (const int rows : {1, 2, 31, 128, 129, 4000}) {
    for (int width = 8; width <= 16384; width += 8) {
      const auto config = OneShotPickConfig(4, rows, width, 64);
      ASSERT_TRUE(config) << width;
      EXPECT_EQ(config->blocks, std::min(rows, 64));
      EXPECT_EQ(config->threads, 128);  // The lanes of the norm.
      const int kept = config->kept * 8 * 128;
      if (width <= 8192) {
        EXPECT_GE(kept, width);
        EXPECT_TRUE(config->kept == 1 || kept < 2 * width + 2048) << ToString(*config);
      } else {
        EXPECT_EQ(config->kept, 0);
      }
      // Pushed rows are in registers, one in each thread block.
      const auto push = PushPickConfig(4, rows, width, 64);
      EXPECT_EQ(push.has_value(), rows <= 64 && width <= 8192);
      if (push) {
        EXPECT_EQ(*push, *config);
      }
    }
  }
  EXPECT_EQ(OneShotPickConfig(8, 1, 4096, 128)->kept, 4);
  EXPECT_EQ(ToString(*OneShotPickConfig(8, 3, 4096, 128)), "blocks 3, threads 128, kept 4");
}

TEST(AllReduceConfig, RefusesWhatTheKernelsDoNotDo) {
  for (const int ranks : {0, 1, 3, 5, 6, 7, 9}) {
    EXPECT_FALSE(OneShotPickConfig(ranks, 1, 64, 8)) << ranks;
    EXPECT_FALSE(PushPickConfig(ranks, 1, 64, 8)) << ranks;
  }
  for (int ranks = 2; ranks <= 8; ++ranks) {
    EXPECT_TRUE(TwoShotSumPickConfig(ranks, 1, 64, 8)) << ranks;
    EXPECT_TRUE(TwoShotFinishPickConfig(ranks, 1, 64, 8)) << ranks;
  }
  for (auto* pick :
       {PushPickConfig, OneShotPickConfig, TwoShotSumPickConfig, TwoShotFinishPickConfig}) {
    EXPECT_FALSE(pick(9, 1, 64, 8));
    EXPECT_FALSE(pick(2, -1, 64, 8));
    EXPECT_FALSE(pick(2, 1, 12, 8));
    EXPECT_FALSE(pick(2, 1, 0, 8));
    EXPECT_FALSE(pick(2, 1, 64, 0));
    EXPECT_FALSE(pick(2, 1, 64, kCommBlocksMax + 1));
  }
}

// Thread block b of a rank meets thread block b of the others, also where a share is empty.
TEST(AllReduceConfig, EveryRankHasTheSameGrid) {
  for (const int rows : {1, 3, 7, 500}) {
    const auto config = TwoShotSumPickConfig(8, rows, 4096, 128);
    ASSERT_TRUE(config);
    EXPECT_EQ(config->blocks, std::min((rows + 7) / 8 * 2, 128));
    EXPECT_EQ(config->threads, 256);
  }
}

TEST(RowShare, SharesAreDisjointAndCoverTheRows) {
  for (int ranks = 2; ranks <= 8; ++ranks) {
    for (int rows = 0; rows <= 100; ++rows) {
      int next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const RowShare share = ShareOf(rows, ranks, rank);
        EXPECT_EQ(share.first, next) << rows << " of " << ranks;
        EXPECT_GE(share.rows, 0);
        EXPECT_LE(share.rows, RowsPerRank(rows, ranks));
        for (int row = share.first; row < share.first + share.rows; ++row) {
          EXPECT_EQ(row / RowsPerRank(rows, ranks), rank);  // As the second kernel finds it.
        }
        next += share.rows;
      }
      EXPECT_EQ(next, rows);
    }
  }
}

TEST(PeerRegion, PartsDoNotOverlap) {
  std::mt19937 generator(7);
  for (int i = 0; i < 200; ++i) {
    const auto below = [&](int limit) { return static_cast<int>(generator() % limit); };
    PeerRegionSizes sizes = {2 + below(7),           1 + below(128), below(5000),
                             16 * (1 + below(1024)), below(100000),  below(1000000),
                             below(1000000),         1 << below(5),  1 + below(8)};
    sizes.push_rows = below(static_cast<int>(sizes.rows_max) + 1);
    ASSERT_TRUE(IsValid(sizes));
    const PeerRegionLayout layout = LayoutOf(sizes);
    const int64_t partial = sizes.rows_max * sizes.row_bytes_max;
    std::vector<std::pair<int64_t, int64_t>> parts = {
        {0, sizeof(PeerRegionHeader)},
        {layout.partials[0], partial},
        {layout.partials[1], partial},
        {layout.inboxes[0], sizes.ranks * layout.inbox_stride},
        {layout.inboxes[1], sizes.ranks * layout.inbox_stride},
        {layout.sums,
         RowsPerRank(static_cast<int>(sizes.rows_max), sizes.ranks) * sizes.row_bytes_max},
        {layout.gathers[0], sizes.gather_bytes},
        {layout.gathers[1], sizes.gather_bytes},
    };
    EXPECT_GE(layout.mail_stride, sizes.mail_bytes);
    EXPECT_GE(layout.inbox_stride, 2 * sizes.push_rows * sizes.row_bytes_max);
    const int senders = std::min(sizes.mail_senders, sizes.ranks - 1);
    for (int place = 0; place < sizes.mail_places * senders; ++place) {
      parts.emplace_back(layout.mail + place * layout.mail_stride, sizes.mail_bytes);
    }
    parts.emplace_back(layout.exchange, sizes.exchange_bytes);
    parts.emplace_back(layout.bytes, 0);
    for (size_t p = 0; p + 1 < parts.size(); ++p) {
      EXPECT_LE(parts[p].first + parts[p].second, parts[p + 1].first) << p;
      EXPECT_EQ(parts[p].first % 256, 0);
    }
  }
}

TEST(PeerRegion, SizesHaveLimits) {
  const PeerRegionSizes good = {2, 16, 64, 8192, 1024, 4096};
  EXPECT_TRUE(IsValid(good));
  const auto with = [&](auto change) {
    PeerRegionSizes sizes = good;
    change(sizes);
    return IsValid(sizes);
  };
  EXPECT_FALSE(with([](auto& s) { s.ranks = 1; }));
  EXPECT_FALSE(with([](auto& s) { s.ranks = 9; }));
  EXPECT_FALSE(with([](auto& s) { s.blocks_max = 0; }));
  EXPECT_FALSE(with([](auto& s) { s.blocks_max = kCommBlocksMax + 1; }));
  EXPECT_FALSE(with([](auto& s) { s.rows_max = -1; }));
  EXPECT_FALSE(with([](auto& s) { s.row_bytes_max = 24; }));
  EXPECT_FALSE(with([](auto& s) { s.row_bytes_max = int64_t{1} << 40; }));
  EXPECT_FALSE(with([](auto& s) { s.gather_bytes = -4; }));
  EXPECT_FALSE(with([](auto& s) { s.mail_bytes = int64_t{1} << 50; }));
  EXPECT_FALSE(with([](auto& s) { s.exchange_bytes = -1; }));
  EXPECT_TRUE(with([](auto& s) { s.push_rows = 64; }));
  EXPECT_FALSE(with([](auto& s) { s.push_rows = 65; }));
  EXPECT_FALSE(with([](auto& s) { s.mail_places = 0; }));
  EXPECT_FALSE(with([](auto& s) { s.mail_places = 3; }));  // Numbers wrap around at 2^32.
  EXPECT_FALSE(with([](auto& s) { s.mail_places = 32; }));
  EXPECT_FALSE(with([](auto& s) { s.mail_senders = 0; }));
}

TEST(PeerRegion, EachSenderHasItsMail) {
  EXPECT_EQ(MailSender(2, 3, 4), 0);
  EXPECT_EQ(MailSender(3, 0, 4), 0);  // The last stage sends to the first one.
  EXPECT_EQ(MailSender(0, 3, 4), 2);
  EXPECT_EQ(MailSender(0, 1, 2), 0);
  EXPECT_EQ(MailSender(1, 0, 2), 0);
}

TEST(PeerRegion, ProgressNamesTheOperation) {
  const uint64_t progress = static_cast<uint64_t>(CommOp::kTwoShotSum) << 32 | 4000000000u;
  EXPECT_EQ(ProgressNumber(progress), 4000000000u);
  EXPECT_STREQ(NameOf(ProgressOp(progress)), "two-shot all-reduce, sums");
  EXPECT_STREQ(NameOf(ProgressOp(0)), "nothing");
}

}  // namespace
}  // namespace fathom::kernels::cuda
