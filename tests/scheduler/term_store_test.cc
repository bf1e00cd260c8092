#include "scheduler/term_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
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

// Mounts a disk of four pages in a process of its own and fills it. Returns 0: success; 77:
// mounting is not allowed here.
int TakeTermsOnAFullDisk(const std::string& folder) {
  const uid_t uid = getuid();
  if (unshare(uid == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0) return 77;
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 77;
  if (mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=16k") != 0) return 77;
  const std::string path = folder + "/term";
  if (!MakeFileTermStore(path)->Take(TermId{0}).ok()) return 1;
  const int filler = open((folder + "/filler").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  const std::string page(4096, 'x');
  while (write(filler, page.data(), page.size()) > 0) {
  }
  if (errno != ENOSPC) return 2;
  for (uint64_t term = 2; term <= 12; ++term) {
    const auto taken = MakeFileTermStore(path)->Take(TermId{0});
    if (!taken.ok() || taken->value != term) return 3;
  }
  // A new file has no block to write to, so the error says that the disk is full.
  const auto first = MakeFileTermStore(folder + "/other")->Take(TermId{0});
  if (!absl::IsResourceExhausted(first.status())) return 4;
  if (Message(first.status()).find("make room") == std::string_view::npos) return 5;
  if (ftruncate(filler, 0) != 0) return 6;
  return MakeFileTermStore(path)->Take(TermId{0})->value == 13 ? 0 : 7;
}

TEST_F(FileTermStoreTest, RisesOnAFullDisk) {
  const pid_t pid = fork();
  if (pid == 0) _exit(TakeTermsOnAFullDisk(folder_));
  int state = 0;
  ASSERT_EQ(waitpid(pid, &state, 0), pid);
  ASSERT_TRUE(WIFEXITED(state));
  if (WEXITSTATUS(state) == 77) GTEST_SKIP() << "this system does not let us mount a small disk";
  EXPECT_EQ(WEXITSTATUS(state), 0);
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
