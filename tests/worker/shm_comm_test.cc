// Collectives over shared memory: exact sums in rank order, between threads and between processes.
// After the epoch is aborted, every wait ends within a bound.
#include "worker/comm/shm_comm.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace fathom::worker {
namespace {

constexpr uint64_t kSeed = 20261124;

float Part(int rank, int round, size_t i) {
  std::minstd_rand rng(
      static_cast<uint32_t>(rank * 7919 + round * 104729 + static_cast<int>(i) + 1));
  rng();
  return static_cast<float>(rng()) / 1e9f - 1.0f;
}

// The sum as the header defines it.
float Expected(int size, int round, size_t i) {
  float sum = Part(0, round, i);
  for (int rank = 1; rank < size; ++rank) sum += Part(rank, round, i);
  return sum;
}

// Runs rounds of collectives of many sizes; returns true if every value is right.
bool RunRank(ShmComm& comm, int rounds) {
  for (int round = 0; round < rounds; ++round) {
    std::minstd_rand rng(static_cast<uint32_t>(kSeed + static_cast<uint64_t>(round)));
    const size_t count = rng() % 700;  // Several meetings of 256 values, a part of one, or none.
    std::vector<float> values(count), all(count * static_cast<size_t>(comm.size()));
    for (size_t i = 0; i < count; ++i) values[i] = Part(comm.rank(), round, i);
    if (!comm.AllGather(values, all).ok() || !comm.AllReduceSum(values).ok()) return false;
    for (size_t i = 0; i < count; ++i) {
      if (values[i] != Expected(comm.size(), round, i)) return false;
      for (int rank = 0; rank < comm.size(); ++rank) {
        if (all[static_cast<size_t>(rank) * count + i] != Part(rank, round, i)) return false;
      }
    }
  }
  return true;
}

// Runs every rank as a thread; `body` gets the rank's comm.
void OnThreads(int size, const std::function<void(ShmComm&)>& body) {
  auto root = ShmComm::Create(size, 256);
  ASSERT_TRUE(root.ok()) << Message(root.status());
  std::vector<std::thread> threads;
  for (int rank = 1; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      auto comm = ShmComm::Open((*root)->name(), rank, size);
      ASSERT_TRUE(comm.ok()) << Message(comm.status());
      body(**comm);
    });
  }
  body(**root);
  for (std::thread& thread : threads) thread.join();
}

class ShmCommSizes : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, ShmCommSizes, testing::Values(1, 2, 3, 4, 7));

TEST_P(ShmCommSizes, SumsInRankOrderBetweenThreads) {
  OnThreads(GetParam(), [](ShmComm& comm) { EXPECT_TRUE(RunRank(comm, 60)); });
}

TEST_P(ShmCommSizes, SumsInRankOrderBetweenProcesses) {
  const int size = GetParam();
  auto root = ShmComm::Create(size, 256);
  ASSERT_TRUE(root.ok()) << Message(root.status());
  std::vector<pid_t> children;
  for (int rank = 1; rank < size; ++rank) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      auto comm = ShmComm::Open((*root)->name(), rank, size);
      _exit(comm.ok() && RunRank(**comm, 60) ? 0 : 1);
    }
    children.push_back(pid);
  }
  EXPECT_TRUE(RunRank(**root, 60));
  for (const pid_t pid : children) {
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
}

TEST(ShmComm, AbortEndsAWaitAndEveryLaterCall) {
  auto root = ShmComm::Create(2, 256);
  ASSERT_TRUE(root.ok());
  auto peer = ShmComm::Open((*root)->name(), 1, 2);
  ASSERT_TRUE(peer.ok());
  std::thread waiter([&] {
    std::vector<float> values(10);
    EXPECT_EQ((*root)->AllReduceSum(values).code(), absl::StatusCode::kAborted);
  });
  (*peer)->Abort();
  waiter.join();
  std::vector<float> values(10);
  EXPECT_EQ((*peer)->AllReduceSum(values).code(), absl::StatusCode::kAborted);
  EXPECT_EQ((*root)->AllReduceSum(values).code(), absl::StatusCode::kAborted);
}

TEST(ShmComm, AKilledPeerLeavesAWaitThatAbortEnds) {
  auto root = ShmComm::Create(2, 256);
  ASSERT_TRUE(root.ok());
  const pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    auto comm = ShmComm::Open((*root)->name(), 1, 2);
    RunRank(**comm, 3);
    kill(getpid(), SIGKILL);
  }
  EXPECT_TRUE(RunRank(**root, 3));
  ASSERT_EQ(waitpid(pid, nullptr, 0), pid);
  std::thread waiter([&] {
    std::vector<float> values(10);
    EXPECT_EQ((*root)->AllReduceSum(values).code(), absl::StatusCode::kAborted);
  });
  (*root)->Abort();
  waiter.join();
}

TEST(ShmComm, TheNameGoesWhenAllAreAttachedOrTheFirstOneDies) {
  auto root = ShmComm::Create(2, 256);
  ASSERT_TRUE(root.ok());
  const std::string name = (*root)->name();
  EXPECT_EQ(ShmComm::Open(name, 1, 3).status().code(), absl::StatusCode::kInvalidArgument);
  auto peer = ShmComm::Open(name, 1, 2);
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(ShmComm::Open(name, 1, 2).status().code(), absl::StatusCode::kInvalidArgument);
  auto lonely = ShmComm::Create(2, 256);
  ASSERT_TRUE(lonely.ok());
  const std::string lonely_name = (*lonely)->name();
  lonely->reset();
  EXPECT_EQ(ShmComm::Open(lonely_name, 1, 2).status().code(), absl::StatusCode::kInvalidArgument);
}

bool IsThere(const std::string& name) {
  const int file = shm_open(name.c_str(), O_RDWR, 0);
  if (file >= 0) close(file);
  return file >= 0;
}

// Both ranks die before the last one attached. The next group of this user removes the region that
// they left, and no region that is still in use.
TEST(ShmComm, WhatKilledRanksLeftIsRemovedByTheNextGroup) {
  auto living = ShmComm::Create(2, 256);
  ASSERT_TRUE(living.ok());
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    living->release();  // The parent's.
    auto comm = ShmComm::Create(2, 256);
    const std::string& name = (*comm)->name();
    if (write(ends[1], name.data(), name.size()) < 0) _exit(1);
    kill(getpid(), SIGKILL);
  }
  char buffer[256] = {};
  ASSERT_GT(read(ends[0], buffer, sizeof(buffer) - 1), 0);
  ASSERT_EQ(waitpid(pid, nullptr, 0), pid);
  close(ends[0]);
  close(ends[1]);
  ASSERT_TRUE(IsThere(buffer)) << "a killed process cleans up nothing";
  const char* const other = "/fathom-test-of-shm-comm";  // A name that ShmComm never makes.
  const int file = shm_open(other, O_CREAT | O_RDWR, 0600);
  ASSERT_GE(file, 0);
  auto next = ShmComm::Create(2, 256);
  ASSERT_TRUE(next.ok());
  EXPECT_FALSE(IsThere(buffer));
  EXPECT_TRUE(IsThere((*living)->name()));
  EXPECT_TRUE(IsThere((*next)->name()));
  EXPECT_TRUE(IsThere(other));
  close(file);
  shm_unlink(other);
}

// Groups that form at the same moment never remove each other's new regions as left over.
TEST(ShmComm, GroupsThatFormAtOneMomentLeaveEachOtherAlone) {
  std::vector<std::thread> threads;
  std::atomic<int> failures = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        auto comm = ShmComm::Create(2, 16);
        if (!comm.ok() || !IsThere((*comm)->name())) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
}

}  // namespace
}  // namespace fathom::worker
