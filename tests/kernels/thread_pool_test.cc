#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace fathom::kernels {
namespace {

TEST(ThreadPoolTest, EachIndexIsDoneOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int64_t count = 0; count < 300; ++count) {
      std::vector<int> done(static_cast<size_t>(count));
      pool.Run(count, 1 + count % 7, [&done](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++done[static_cast<size_t>(i)];
      });
      ASSERT_EQ(done, std::vector<int>(static_cast<size_t>(count), 1)) << count;
    }
  }
}

// Jobs of all sizes without a pause: a late thread must not work on the next job.
TEST(ThreadPoolTest, JobsFollowEachOther) {
  ThreadPool pool(3);
  std::vector<int64_t> sums(64);
  for (int64_t round = 0; round < 20'000; ++round) {
    const int64_t count = round % 64 + 1;
    pool.Run(count, 1, [&sums, round](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sums[static_cast<size_t>(i)] += round;
    });
  }
  int64_t expected = 0;
  for (int64_t round = 0; round < 20'000; ++round) expected += round * (round % 64 + 1);
  EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), int64_t{0}), expected);
}

}  // namespace
}  // namespace fathom::kernels
