// All-gather, exchange of rows, and messages between ranks on one device.
#include <algorithm>
#include <random>

#include "tests/kernels/cuda/comm_ranks.h"

namespace fathom::kernels::cuda {
namespace {

using gpu_test::CommRanks;
using gpu_test::DeviceBuffer;

constexpr int64_t kBytesMax = 300 * 1024;

PeerRegionSizes SizesOf(int ranks) { return {ranks, 8, 4, 64, kBytesMax, kBytesMax}; }

std::vector<uint32_t> Words(int64_t count, uint32_t salt) {
  std::vector<uint32_t> words(count);
  std::mt19937 generator(static_cast<uint32_t>(gpu_test::Seed()) + salt);
  for (uint32_t& word : words) word = generator();
  return words;
}

TEST(CommMessages, GatherHasTheRanksInOrder) {
  for (const int size : {2, 3, 8}) {
    CommRanks ranks(SizesOf(size));
    uint32_t salt = 0;
    // Sizes go up and down, because a buffer is used again with another size.
    for (const int64_t bytes : {4, 16, 4096, 300 * 1024, 60, 65536 + 4, 0, 200 * 1024 + 12, 8}) {
      const int64_t count = bytes / 4;
      std::vector<uint32_t> want;
      std::vector<std::unique_ptr<DeviceBuffer<uint32_t>>> mine, all;
      for (int r = 0; r < size; ++r) {
        const std::vector<uint32_t> words = Words(count, ++salt);
        want.insert(want.end(), words.begin(), words.end());
        mine.push_back(std::make_unique<DeviceBuffer<uint32_t>>(words));
        all.push_back(std::make_unique<DeviceBuffer<uint32_t>>(count * size));
      }
      EXPECT_CUDA(cudaDeviceSynchronize());
      ranks.ForEach([&](int r) {
        return PeerGather(ranks.context(r), {ranks.group(r), mine[r]->get(), all[r]->get(), bytes});
      });
      ranks.Finish();
      // Of ranks that take turns, only the last one has what all have sent.
      for (int r = gpu_test::Sanitized() ? size - 1 : 0; r < size; ++r) {
        EXPECT_EQ(all[r]->Download(), want) << size << " ranks, " << bytes << " bytes, rank " << r;
      }
    }
  }
}

// Each rank reads its rows of all ranks' slices, which are written again in each turn.
TEST(CommMessages, AfterAnExchangeRowsOfOtherRanksCanBeRead) {
  constexpr int kRows = 11, kRowWords = 1000, kTurns = 20;
  for (const int size : {2, 3, 8}) {
    PeerRegionSizes sizes = SizesOf(size);
    sizes.exchange_bytes = kRows * kRowWords * 4;
    CommRanks ranks(sizes);
    const auto rows_of = [&](int reader, int r) {
      return ranks.group(reader).regions[r] + ranks.group(reader).layout.exchange;
    };
    for (int turn = 0; turn < kTurns; ++turn) {
      std::vector<std::vector<uint32_t>> slices;
      std::vector<std::unique_ptr<DeviceBuffer<uint32_t>>> sources, read;
      for (int r = 0; r < size; ++r) {
        slices.push_back(Words(kRows * kRowWords, static_cast<uint32_t>(100 * turn + r)));
        sources.push_back(std::make_unique<DeviceBuffer<uint32_t>>(slices.back()));
        read.push_back(std::make_unique<DeviceBuffer<uint32_t>>(size * kRows * kRowWords));
      }
      EXPECT_CUDA(cudaDeviceSynchronize());
      for (int r = 0; r < size; ++r) {
        EXPECT_CUDA(cudaMemcpyAsync(rows_of(r, r), sources[r]->get(), sizes.exchange_bytes,
                                    cudaMemcpyDeviceToDevice, ranks.stream(r)));
      }
      ranks.ForEach([&](int r) { return PeerExchange(ranks.context(r, false), ranks.group(r)); });
      for (int r = 0; r < size; ++r) {
        for (int peer = 0; peer < size; ++peer) {
          EXPECT_CUDA(cudaMemcpyAsync(read[r]->get() + int64_t{peer} * kRows * kRowWords,
                                      rows_of(r, peer), sizes.exchange_bytes,
                                      cudaMemcpyDeviceToDevice, ranks.stream(r)));
        }
      }
      // The meeting after which rows may be written again.
      ranks.ForEach([&](int r) { return PeerExchange(ranks.context(r, false), ranks.group(r)); });
      ranks.Finish();
      for (int r = 0; r < size; ++r) {
        const std::vector<uint32_t> got = read[r]->Download();
        for (int peer = 0; peer < size; ++peer) {
          const auto begin = got.begin() + int64_t{peer} * kRows * kRowWords;
          EXPECT_TRUE(std::equal(slices[peer].begin(), slices[peer].end(), begin))
              << size << " ranks, turn " << turn << ", rank " << r << " reads " << peer;
        }
      }
    }
  }
}

// Rank 0 sends to rank 1, rank 1 to rank 2, and rank 2 the ids back to rank 0, as stages do.
TEST(CommMessages, MessagesGoRoundAndKeepTheirOrder) {
  constexpr int kStages = 3;
  CommRanks ranks(SizesOf(kStages));
  const std::vector<int64_t> sizes = {8, 200 * 1024, 12, 65536, 4, 300 * 1024, 4100, 64};
  for (size_t turn = 0; turn < sizes.size(); ++turn) {
    const int64_t bytes = sizes[turn], count = bytes / 4;
    const std::vector<uint32_t> words = Words(count, static_cast<uint32_t>(turn));
    DeviceBuffer<uint32_t> first(words);
    DeviceBuffer<uint32_t> stage1(count), stage2(count), back(count);
    EXPECT_CUDA(cudaDeviceSynchronize());
    // In the order in which one kernel at a time ends.
    const auto message = [&](int r, int peer, const DeviceBuffer<uint32_t>& data) {
      return PeerMessageArgs{ranks.group(r), peer, data.get(), data.get(), bytes};
    };
    EXPECT_CUDA(PeerSend(ranks.context(0), message(0, 1, first)));
    EXPECT_CUDA(PeerRecv(ranks.context(1), message(1, 0, stage1)));
    EXPECT_CUDA(PeerSend(ranks.context(1), message(1, 2, stage1)));
    EXPECT_CUDA(PeerRecv(ranks.context(2), message(2, 1, stage2)));
    EXPECT_CUDA(PeerSend(ranks.context(2), message(2, 0, stage2)));
    EXPECT_CUDA(PeerRecv(ranks.context(0), message(0, 2, back)));
    ranks.Finish();
    EXPECT_EQ(back.Download(), words) << bytes << " bytes";
    EXPECT_EQ(stage1.Download(), words) << bytes << " bytes";
  }
}

// With as many places as messages a sender never waits, and only the rank before a rank has them.
TEST(CommMessages, EachPlaceHoldsAMessage) {
  constexpr int kStages = 3;
  for (const int places : {1, 4, 16}) {
    PeerRegionSizes sizes = SizesOf(kStages);
    sizes.mail_places = places;
    sizes.mail_senders = 1;
    CommRanks ranks(sizes);
    for (int turn = 0; turn < 3; ++turn) {
      std::vector<std::vector<uint32_t>> sent;
      DeviceBuffer<uint32_t> to(2000);
      for (int i = 0; i < places; ++i) {
        sent.push_back(Words(2000, static_cast<uint32_t>(100 * turn + i)));
        const DeviceBuffer<uint32_t> data(sent.back());
        EXPECT_CUDA(cudaDeviceSynchronize());
        EXPECT_CUDA(PeerSend(ranks.context(2), {ranks.group(2), 0, data.get(), nullptr, 8000}));
        ranks.Finish();
      }
      for (int i = 0; i < places; ++i) {
        EXPECT_CUDA(PeerRecv(ranks.context(0), {ranks.group(0), 2, nullptr, to.get(), 8000}));
        ranks.Finish();
        EXPECT_EQ(to.Download(), sent[static_cast<size_t>(i)])
            << places << " places, message " << i;
      }
    }
    const PeerMessageArgs back = {ranks.group(0), 2, nullptr, nullptr, 8000};
    EXPECT_EQ(PeerSend(ranks.context(0), back), cudaErrorInvalidValue);
    EXPECT_EQ(PeerRecv(ranks.context(0), {ranks.group(0), 1, nullptr, nullptr, 8000}),
              cudaErrorInvalidValue);
  }
}

// The third message waits until the first one is taken.
TEST(CommMessages, ASenderIsAtMostTwoMessagesAhead) {
  if (gpu_test::Sanitized()) GTEST_SKIP() << "a launch may wait for its end";
  CommRanks ranks(SizesOf(2));
  const DeviceBuffer<uint32_t> data(Words(3000, 3));
  DeviceBuffer<uint32_t> to(3000);
  EXPECT_CUDA(cudaDeviceSynchronize());
  for (int i = 0; i < 5; ++i) {
    EXPECT_CUDA(PeerSend(ranks.context(0), {ranks.group(0), 1, data.get(), nullptr, 12000}));
  }
  EXPECT_TRUE(gpu_test::Eventually([&] { return ProgressNumber(ranks.Progress(0)) >= 3; }));
  EXPECT_EQ(ProgressNumber(ranks.Progress(0)), 3u);
  EXPECT_EQ(ProgressOp(ranks.Progress(0)), CommOp::kSend);
  EXPECT_EQ(cudaStreamQuery(ranks.stream(0)), cudaErrorNotReady);
  for (int i = 0; i < 5; ++i) {
    EXPECT_CUDA(PeerRecv(ranks.context(1), {ranks.group(1), 0, nullptr, to.get(), 12000}));
  }
  ranks.Finish();
  EXPECT_EQ(to.Download(), data.Download());
  EXPECT_EQ(ranks.Header(0).sent[0][1], 5u);
  EXPECT_EQ(ranks.Header(1).received[0][0], 5u);
}

// A chain of sends and receives in replayed graphs: a pipeline of two stages.
TEST(CommMessages, MessagesInGraphs) {
  if (gpu_test::Sanitized()) GTEST_SKIP() << "the ranks of a graph cannot take turns";
  CommRanks ranks(SizesOf(2));
  DeviceBuffer<uint32_t> a(Words(5000, 9)), b(5000);
  cudaGraphExec_t graphs[2] = {};
  EXPECT_CUDA(cudaDeviceSynchronize());
  for (int r = 0; r < 2; ++r) {
    cudaGraph_t graph = nullptr;
    const LaunchContext context = ranks.context(r);
    uint32_t* const mine = r == 0 ? a.get() : b.get();
    const PeerMessageArgs message = {ranks.group(r), 1 - r, mine, mine, 20000};
    ASSERT_CUDA(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeThreadLocal));
    EXPECT_CUDA(r == 0 ? PeerSend(context, message) : PeerRecv(context, message));
    EXPECT_CUDA(r == 0 ? PeerRecv(context, message) : PeerSend(context, message));
    ASSERT_CUDA(cudaStreamEndCapture(context.stream, &graph));
    ASSERT_CUDA(cudaGraphInstantiate(&graphs[r], graph, 0));
    ASSERT_CUDA(cudaGraphDestroy(graph));
    ASSERT_CUDA(cudaGraphUpload(graphs[r], context.stream));
  }
  const std::vector<uint32_t> want = a.Download();
  EXPECT_CUDA(cudaDeviceSynchronize());
  for (int replay = 0; replay < 200; ++replay) {
    for (int r = 0; r < 2; ++r) ASSERT_CUDA(cudaGraphLaunch(graphs[r], ranks.stream(r)));
  }
  ranks.Finish();
  EXPECT_EQ(a.Download(), want);
  EXPECT_EQ(b.Download(), want);
  EXPECT_EQ(ranks.Header(0).received[0][1], 200u);
  for (cudaGraphExec_t graph : graphs) EXPECT_CUDA(cudaGraphExecDestroy(graph));
}

TEST(CommMessages, RefusesWhatItDoesNotDo) {
  CommRanks ranks(SizesOf(2));
  DeviceBuffer<uint32_t> data(4);
  PeerMessageArgs message = {ranks.group(0), 0, data.get(), data.get(), 16};
  EXPECT_EQ(PeerSend(ranks.context(0), message), cudaErrorInvalidValue);  // To itself.
  message.peer = 1, message.bytes = 6;
  EXPECT_EQ(PeerRecv(ranks.context(0), message), cudaErrorInvalidValue);
  message.bytes = kBytesMax + 4096;
  EXPECT_EQ(PeerSend(ranks.context(0), message), cudaErrorInvalidValue);
  EXPECT_EQ(
      PeerGather(ranks.context(0), {ranks.group(0), data.get(), data.get(), kBytesMax + 4096}),
      cudaErrorInvalidValue);
}

}  // namespace
}  // namespace fathom::kernels::cuda
