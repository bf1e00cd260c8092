// The links between stages: every byte comes once and in order, for messages of any size, in rings
// of any size, between threads and between processes. An abort ends every wait.
#include "worker/comm/shm_stages.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace fathom::worker {
namespace {

uint64_t TestSeed() {
  const char* seed = std::getenv("FATHOM_SEED");
  return seed != nullptr ? std::strtoull(seed, nullptr, 10) : 20261130;
}

// The bytes that rank `rank` sends, one after the other.
class Bytes {
 public:
  explicit Bytes(int32_t rank) : rng_(static_cast<uint32_t>(rank) + 1) {}
  std::vector<std::byte> Next(size_t count) {
    std::vector<std::byte> bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng_() & 0xff);
    return bytes;
  }

 private:
  std::minstd_rand rng_;
};

// One rank: in each round it sends a message to the next stage and receives one from the previous
// one, as the stages of a pipeline do: the first stage sends before it receives. Every rank draws
// the same sizes. Returns true if every byte is right.
bool RunRank(StageLinks& links, const GroupShape& shape, int32_t rank, int rounds, size_t most) {
  Bytes mine(rank), theirs((rank + shape.ranks() - shape.tp) % shape.ranks());
  for (int round = 0; round < rounds; ++round) {
    std::minstd_rand rng(static_cast<uint32_t>(TestSeed()) + static_cast<uint32_t>(round));
    const size_t count = rng() % 5 == 0 ? 0 : rng() % most;
    std::vector<std::byte> got(count);
    const auto receive = [&] { return links.Receive(got).ok() && got == theirs.Next(count); };
    if (shape.StageOf(rank) > 0 && !receive()) return false;
    if (!links.Send(mine.Next(count)).ok()) return false;
    if (shape.StageOf(rank) == 0 && !receive()) return false;
  }
  return true;
}

using Body = std::function<void(ShmStages&, int32_t)>;

// Runs every rank as a thread.
void OnThreads(const GroupShape& shape, int64_t ring_bytes, const Body& body) {
  auto first = ShmStages::Create(shape, ring_bytes);
  ASSERT_TRUE(first.ok()) << Message(first.status());
  std::vector<std::unique_ptr<ShmStages>> ranks;
  ranks.push_back(*std::move(first));
  for (int32_t rank = 1; rank < shape.ranks(); ++rank) {
    auto opened = ShmStages::Open(ranks[0]->name(), shape, rank);
    ASSERT_TRUE(opened.ok()) << Message(opened.status());
    ranks.push_back(*std::move(opened));
  }
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < shape.ranks(); ++rank) {
    threads.emplace_back([&, rank] { body(*ranks[static_cast<size_t>(rank)], rank); });
  }
  for (std::thread& thread : threads) thread.join();
}

class ShmStagesShapes : public testing::TestWithParam<GroupShape> {};
INSTANTIATE_TEST_SUITE_P(Shapes, ShmStagesShapes,
                         testing::Values(GroupShape{1, 2}, GroupShape{1, 5}, GroupShape{2, 2},
                                         GroupShape{3, 3}),
                         [](const auto& param_info) {
                           return "tp" + std::to_string(param_info.param.tp) + "_pp" +
                                  std::to_string(param_info.param.pp);
                         });

// The rings are shorter than a message, as long, and longer; their ends come at any byte. The
// counters wrap after 8 KiB.
TEST_P(ShmStagesShapes, EveryByteComesOnceAndInOrder) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  struct Case {
    int64_t ring_bytes;
    int rounds;
    size_t most;
  };
  for (const Case& one :
       {Case{1, 12, 30}, Case{7, 20, 100}, Case{1000, 60, 1000}, Case{100'000, 60, 1000}}) {
    OnThreads(GetParam(), one.ring_bytes, [&](ShmStages& links, int32_t rank) {
      EXPECT_TRUE(RunRank(links, GetParam(), rank, one.rounds, one.most))
          << "a ring of " << one.ring_bytes;
    });
  }
}

TEST_P(ShmStagesShapes, BetweenProcessesToo) {
  const GroupShape shape = GetParam();
  auto first = ShmStages::Create(shape, 777);
  ASSERT_TRUE(first.ok()) << Message(first.status());
  std::vector<pid_t> children;
  for (int32_t rank = 1; rank < shape.ranks(); ++rank) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      auto links = ShmStages::Open((*first)->name(), shape, rank);
      _exit(links.ok() && RunRank(**links, shape, rank, 40, 1000) ? 0 : 1);
    }
    children.push_back(pid);
  }
  EXPECT_TRUE(RunRank(**first, shape, 0, 40, 1000));
  for (const pid_t pid : children) {
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
}

// Every other rank waits, for room or for bytes, and any rank ends all waits.
TEST_P(ShmStagesShapes, AnAbortOfAnyRankEndsEveryWait) {
  const GroupShape shape = GetParam();
  for (int32_t who = 0; who < shape.ranks(); ++who) {
    for (const bool send : {true, false}) {
      std::atomic<int> waiting = 0;
      OnThreads(shape, 100, [&](ShmStages& links, int32_t rank) {
        if (rank == who) {
          while (waiting < shape.ranks() - 1) std::this_thread::yield();
          return links.Abort();
        }
        std::vector<std::byte> bytes(1000);
        ++waiting;
        const absl::Status ended = send ? links.Send(bytes) : links.Receive(bytes);
        EXPECT_EQ(ended.code(), absl::StatusCode::kAborted) << "rank " << rank << ", by " << who;
        EXPECT_EQ(links.Send({}).code(), absl::StatusCode::kAborted);
        EXPECT_EQ(links.Receive({}).code(), absl::StatusCode::kAborted);
      });
    }
  }
}

TEST(ShmStages, AnotherShapeOrRegionIsRefused) {
  auto first = ShmStages::Create({2, 3}, 100);
  ASSERT_TRUE(first.ok());
  const std::string& name = (*first)->name();
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(ShmStages::Open(name, {3, 2}, 1).status().code(), kInvalid);
  EXPECT_EQ(ShmStages::Open(name, {1, 3}, 1).status().code(), kInvalid);
  EXPECT_EQ(ShmStages::Open("/fathom-none", {2, 3}, 1).status().code(), kInvalid);
  EXPECT_TRUE(ShmStages::Open(name, {2, 3}, 1).ok());
}

TEST(ShmStages, ARingHasRoomForAllSamplesInFlight) {
  EXPECT_EQ(RingBytes({1, 4}, {.rows_bytes = 1000, .samples_bytes = 10}), 5000);
  EXPECT_EQ(RingBytes({1, 4}, {.rows_bytes = 1 << 30, .samples_bytes = 10}), 4 << 20);
  EXPECT_EQ(RingBytes({1, 4}, {.rows_bytes = 10, .samples_bytes = 2 << 20}), 10 << 20);
}

}  // namespace
}  // namespace fathom::worker
