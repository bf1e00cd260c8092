#include "scheduler/term_store.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

namespace fathom::scheduler {
namespace {

class FileTermStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/fathom-term-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    path_ = pattern + "/term";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& text) { std::ofstream(path_) << text; }

  std::string folder_, path_;
};

TEST_F(FileTermStoreTest, StartsAtOneAndRisesOverRestarts) {
  for (uint64_t life = 1; life <= 3; ++life) {
    auto term = MakeFileTermStore(path_)->Take(TermId{0});
    ASSERT_TRUE(term.ok()) << ToString(term.status());
    EXPECT_EQ(term->value, life);
  }
}

TEST_F(FileTermStoreTest, IsAboveWhatAPeerHasSeen) {
  auto store = MakeFileTermStore(path_);
  EXPECT_EQ(store->Take(TermId{41})->value, 42u);
  EXPECT_EQ(store->Take(TermId{7})->value, 43u);
}

TEST_F(FileTermStoreTest, RefusesWhatIsNoTerm) {
  for (const char* text : {"seven\n", "12 34\n", "-1\n", "", "99999999999999999999\n"}) {
    Write(text);
    EXPECT_EQ(MakeFileTermStore(path_)->Take(TermId{0}).status().code(),
              absl::StatusCode::kDataLoss)
        << text;
  }
  Write("5\n");
  EXPECT_EQ(MakeFileTermStore(path_)->Take(TermId{~uint64_t{0}}).status().code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(MakeFileTermStore(path_)->Take(TermId{0})->value, 6u);
}

TEST_F(FileTermStoreTest, SaysWhichFolderIsMissing) {
  auto term = MakeFileTermStore(folder_ + "/none/term")->Take(TermId{0});
  EXPECT_EQ(term.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(Message(term.status()).find("--term-file"), std::string_view::npos);
}

TEST_F(FileTermStoreTest, NeverHandsOutATermTwice) {
  constexpr int kThreads = 4, kEach = 10;
  std::vector<std::vector<uint64_t>> taken(kThreads);
  std::vector<std::thread> threads;
  for (auto& mine : taken) {
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i)
        mine.push_back(MakeFileTermStore(path_)->Take(TermId{0})->value);
    });
  }
  for (auto& thread : threads) thread.join();
  std::set<uint64_t> all;
  for (const auto& mine : taken) all.insert(mine.begin(), mine.end());
  EXPECT_EQ(all.size(), kThreads * kEach);
  EXPECT_EQ(*all.rbegin(), kThreads * kEach);
}

}  // namespace
}  // namespace fathom::scheduler
