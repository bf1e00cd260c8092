// The flags of NCCL become its variables, which the user's own have precedence over; what NCCL
// writes lands in a bounded file, and its last lines are there for an error message.
#include "worker/comm/nccl_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "worker/comm/nccl_log.h"

namespace fathom::worker {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

class NcclSettingsTest : public testing::Test {
 protected:
  NcclSettingsTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "fathom-nccl-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    Unset();
  }
  ~NcclSettingsTest() override {
    Unset();
    std::filesystem::remove_all(folder_);
  }
  static void Unset() {
    for (const char* name : {"NCCL_SOCKET_IFNAME", "NCCL_DEBUG", "NCCL_DEBUG_FILE"}) unsetenv(name);
  }
  std::string Content(const std::string& name) const {
    std::ifstream file(folder_ / name);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  static std::string Get(const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? "" : value;
  }

  std::filesystem::path folder_;
};

// As NCCL does it: opens the file by name and writes lines.
void WriteLikeNccl(const std::string& path, const std::vector<std::string>& lines) {
  FILE* const file = fopen(path.c_str(), "w");
  ASSERT_NE(file, nullptr) << path;
  setlinebuf(file);
  for (const std::string& line : lines) fprintf(file, "%s\n", line.c_str());
  fclose(file);
}

TEST_F(NcclSettingsTest, AnInterfaceThatIsNotThereIsRefusedWithThoseThatAre) {
  EXPECT_THAT(NetworkInterfaces(), Contains("lo"));
  EXPECT_TRUE(CheckNcclInterface("ib0", {"eth0", "ib0"}).ok());
  const absl::Status none = ApplyNcclSettings({.interface = "no-such0", .debug = "INFO"});
  EXPECT_EQ(none.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(none)),
              AllOf(HasSubstr("--nccl-interface no-such0"), HasSubstr("lo")));
  EXPECT_EQ(Get("NCCL_DEBUG"), "");
}

TEST_F(NcclSettingsTest, TheUsersVariablesHavePrecedence) {
  setenv("NCCL_SOCKET_IFNAME", "eth9", 1);
  setenv("NCCL_DEBUG", "VERSION", 1);
  setenv("NCCL_DEBUG_FILE", "mine.%h.%p", 1);
  ASSERT_TRUE(ApplyNcclSettings({.interface = "lo", .debug = "INFO"}).ok());
  EXPECT_EQ(Get("NCCL_SOCKET_IFNAME"), "eth9");
  EXPECT_EQ(Get("NCCL_DEBUG"), "VERSION");
  EXPECT_EQ(Get("NCCL_DEBUG_FILE"), "mine.%h.%p");
  EXPECT_EQ(NcclLogTail(), "");
}

TEST_F(NcclSettingsTest, WithoutFlagsNothingIsSet) {
  ASSERT_TRUE(ApplyNcclSettings({}).ok());
  for (const char* name : {"NCCL_SOCKET_IFNAME", "NCCL_DEBUG", "NCCL_DEBUG_FILE"}) {
    EXPECT_EQ(Get(name), "");
  }
}

// The log of a process is started once, so this is the only test that starts it.
TEST_F(NcclSettingsTest, WhatNcclWritesIsInTheFileAndInTheTail) {
  const std::string path = folder_ / "worker-0.nccl.log";
  ASSERT_TRUE(ApplyNcclSettings({.interface = "lo", .debug = "INFO", .debug_file = path}).ok());
  EXPECT_EQ(Get("NCCL_SOCKET_IFNAME"), "=lo");
  EXPECT_EQ(Get("NCCL_DEBUG"), "INFO");
  std::vector<std::string> lines;
  for (int i = 0; i < 100; ++i) lines.push_back("host:1:1 [0] NCCL INFO line " + std::to_string(i));
  WriteLikeNccl(Get("NCCL_DEBUG_FILE"), lines);
  std::string tail;
  while (!tail.ends_with("line 99")) tail = NcclLogTail();  // Until the thread has read all.
  EXPECT_THAT(tail, AllOf(HasSubstr("the last lines of NCCL (" + path + "): "),
                          HasSubstr("line 94 | "), Not(HasSubstr("line 93"))));
  EXPECT_THAT(Content("worker-0.nccl.log"), AllOf(HasSubstr("line 0\n"), EndsWith("line 99\n")));
}

TEST_F(NcclSettingsTest, TheFileIsBounded) {
  const std::string path = folder_ / "a.log";
  {
    auto log = NcclLog::Start(path, 1000);
    ASSERT_TRUE(log.ok()) << ToString(log.status());
    const std::vector<std::string> lines(500, std::string(99, 'x'));
    WriteLikeNccl((*log)->nccl_path(), lines);
    WriteLikeNccl((*log)->nccl_path(), {std::string(3 * NcclLog::kLineBytesMax, 'y')});
  }
  EXPECT_LE(std::filesystem::file_size(path), 1000 + NcclLog::kLineBytesMax);
  EXPECT_LE(std::filesystem::file_size(path + ".1"), 1000 + NcclLog::kLineBytesMax);
  EXPECT_FALSE(NcclLog::Start(folder_ / "none" / "a.log").ok());
}

}  // namespace
}  // namespace fathom::worker
