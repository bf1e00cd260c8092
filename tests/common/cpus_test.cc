// CPU quotas in the files of invented control groups.
#include "common/cpus.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace fathom {
namespace {

class CpusTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = ::testing::TempDir() + "/fathom-cpus";
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  std::string root_;
};

TEST_F(CpusTest, WithoutGroupsThereIsNoQuota) {
  EXPECT_FALSE(CpuQuota(root_).has_value());
  EXPECT_EQ(UsableCpus(root_), static_cast<int>(std::thread::hardware_concurrency()));
}

TEST_F(CpusTest, SecondVersionLeastOfAGroupAndThoseAroundIt) {
  Write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n");
  Write("/proc/self/cgroup", "0::/a.slice/b.service\n");
  Write("/sys/fs/cgroup/a.slice/b.service/cpu.max", "max 100000\n");
  EXPECT_FALSE(CpuQuota(root_).has_value());
  Write("/sys/fs/cgroup/a.slice/cpu.max", "250000 100000\n");
  EXPECT_EQ(CpuQuota(root_), 2.5);
  Write("/sys/fs/cgroup/a.slice/b.service/cpu.max", "150000 100000\n");
  EXPECT_EQ(CpuQuota(root_), 1.5);
  EXPECT_EQ(UsableCpus(root_), 1);
  Write("/sys/fs/cgroup/a.slice/b.service/cpu.max", "20000 100000\n");
  EXPECT_EQ(UsableCpus(root_), 1) << "never none";
}

TEST_F(CpusTest, FirstVersionByTheMountThatHasTheCpuController) {
  Write("/proc/self/mountinfo",
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
        "33 31 0:30 / /sys/fs/cgroup/cpuset rw shared:9 - cgroup cgroup rw,cpuset\n"
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:8 - cgroup cgroup rw,cpu,cpuacct\n");
  Write("/proc/self/cgroup", "3:cpuset:/other\n2:cpu,cpuacct:/job\n0::/\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  EXPECT_FALSE(CpuQuota(root_).has_value());
  Write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "300000\n");
  EXPECT_EQ(CpuQuota(root_), 3.0);
}

// A container sees its own group as the mount, and may see the host's path of the group.
TEST_F(CpusTest, AContainersMountIsItsGroup) {
  Write("/proc/self/mountinfo",
        "32 31 0:29 /docker/1f /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "50000\n");
  for (const char* path : {"/docker/1f", "/", "/kubepods/pod1/c1"}) {
    Write("/proc/self/cgroup", std::string("4:cpu:") + path + "\n");
    EXPECT_EQ(CpuQuota(root_), 4.0) << path;
  }
  Write("/sys/fs/cgroup/cpu/inner/cpu.cfs_quota_us", "50000\n");
  Write("/sys/fs/cgroup/cpu/inner/cpu.cfs_period_us", "50000\n");
  Write("/proc/self/cgroup", "4:cpu:/docker/1f/inner\n");
  EXPECT_EQ(CpuQuota(root_), 1.0);
}

}  // namespace
}  // namespace fathom
