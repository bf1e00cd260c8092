#include "common/host_limits.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <new>
#include <system_error>
#include <thread>

#include "common/exit_codes.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

class CgroupTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/fathom-cgroup-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override { fs::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  fs::path root_;
};

TEST_F(CgroupTest, NothingToReadIsUnlimited) {
  EXPECT_FALSE(ReadCgroupLimits(root_).memory_bytes);
  EXPECT_FALSE(ReadCgroupLimits(root_).threads_left);
  Write("proc/self/cgroup", "0::/a/b\nnonsense\n:\n");
  Write("sys/fs/cgroup/a/b/memory.max", "max\n");
  EXPECT_FALSE(ReadCgroupLimits(root_).memory_bytes);
}

TEST_F(CgroupTest, TheTightestOfAGroupAndItsParentsCounts) {
  Write("proc/self/cgroup", "0::/a/b\n");
  Write("sys/fs/cgroup/a/b/memory.max", "max\n");
  Write("sys/fs/cgroup/a/memory.max", "1000\n");
  Write("sys/fs/cgroup/a/b/pids.max", "10\n");
  Write("sys/fs/cgroup/a/b/pids.current", "4\n");
  Write("sys/fs/cgroup/a/pids.max", "30\n");
  Write("sys/fs/cgroup/a/pids.current", "29\n");
  EXPECT_EQ(ReadCgroupLimits(root_).memory_bytes, 1000);
  EXPECT_EQ(ReadCgroupLimits(root_).threads_left, 1);
}

// cgroups v1 in a container: the path is the host's, and the container sees its own group as the
// top.
TEST_F(CgroupTest, VersionOneAndAContainersTop) {
  Write("proc/self/cgroup", "7:cpu,cpuacct:/docker/1\n5:pids:/docker/1\n4:memory:/docker/1\n");
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n");
  Write("sys/fs/cgroup/pids/pids.max", "100\n");
  Write("sys/fs/cgroup/pids/pids.current", "101\n");
  EXPECT_EQ(ReadCgroupLimits(root_).memory_bytes, 2000);
  EXPECT_EQ(ReadCgroupLimits(root_).threads_left, 0);
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_FALSE(ReadCgroupLimits(root_).memory_bytes);
}

TEST(HostLimits, EachLimitIsNamedWithWhatWasFoundAndWhatIsNeeded) {
  const HostNeeds needs{
      .descriptors = 48, .address_space_bytes = 1 << 30, .threads = 24, .memory_bytes = 2 << 20};
  const auto says = [&](const HostLimits& limits) {
    return std::string(Message(CheckHostLimits(needs, limits)));
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_EQ(says({}), "");
  EXPECT_EQ(says({48, 1 << 30, {2 << 20, 24}}), "");
  const std::string descriptors = says({47, {}, {}});
  EXPECT_TRUE(has(descriptors, "47") && has(descriptors, "48") && has(descriptors, "ulimit -Hn"));
  const std::string space = says({{}, 100 << 20, {}});
  EXPECT_TRUE(has(space, "100 MiB") && has(space, "1 GiB") && has(space, "ulimit -v")) << space;
  const std::string threads = says({{}, {}, {{}, 23}});
  EXPECT_TRUE(has(threads, "23") && has(threads, "24") && has(threads, "pids")) << threads;
  const std::string memory = says({{}, {}, {1 << 20, {}}});
  EXPECT_TRUE(has(memory, "1 MiB") && has(memory, "2 MiB") && has(memory, "--memory")) << memory;
}

int InChildWithLastWords(const std::function<void()>& work) {
  const pid_t pid = fork();
  if (pid == 0) {
    InstallLastWords("test");
    work();
    _exit(0);
  }
  int state = 0;
  EXPECT_EQ(waitpid(pid, &state, 0), pid);
  return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
}

TEST(HostLimits, TheSoftLimitOfDescriptorsIsRaised) {
  EXPECT_EQ(InChildWithLastWords([] {
              rlimit limit{};
              getrlimit(RLIMIT_NOFILE, &limit);
              limit.rlim_cur = 32;
              setrlimit(RLIMIT_NOFILE, &limit);
              if (limit.rlim_max > 32 && TakeHostLimits().descriptors.value_or(1 << 20) <= 32) {
                _exit(1);
              }
            }),
            0);
}

TEST(HostLimits, OutOfMemoryAndThreadsEndInWordsWithTheirCode) {
  EXPECT_EQ(InChildWithLastWords([] { std::get_new_handler()(); }), kExitResources);
  EXPECT_EQ(InChildWithLastWords([] {
              const auto error = std::make_error_code(std::errc::resource_unavailable_try_again);
              std::thread([&] { throw std::system_error(error); }).join();
            }),
            kExitResources);
}

}  // namespace
}  // namespace fathom
