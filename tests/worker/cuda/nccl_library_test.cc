// What can be tested of NCCL without a GPU: the library that is not there, and the version.
#include "worker/comm/cuda/nccl_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "worker/comm/cuda/nccl_comm.h"
#include "worker/comm/nccl_log.h"
#include "worker/comm/nccl_settings.h"

namespace fathom::worker {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

// Where there is an NCCL, also without a GPU: it opens our pipe by the name that it is given. The
// first test, because NCCL reads its variables once.
TEST(NcclLibrary, WhatTheLibraryWritesIsInTheLog) {
  if (!OpenNccl().ok()) GTEST_SKIP() << ToString(OpenNccl().status());
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("fathom-nccl-" + std::to_string(getpid()) + ".log");
  ASSERT_TRUE(
      ApplyNcclSettings({.interface = "lo", .debug = "INFO", .debug_file = path.string()}).ok());
  const auto id = MakeNcclId();
  if (!id.ok()) {
    EXPECT_THAT(std::string(Message(id.status())), HasSubstr("last lines of NCCL"));
  }
  EXPECT_THAT(NcclLogTail(), HasSubstr("NCCL INFO"));
  std::ifstream file(path);
  const std::string written{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  EXPECT_THAT(written, HasSubstr("NCCL INFO"));
  std::filesystem::remove(path);
}

TEST(NcclLibrary, AVersionIsFoundAndNeeded) {
  EXPECT_EQ(NcclVersionText(22809), "2.28.9");
  EXPECT_TRUE(CheckNcclVersion(22800).ok());
  EXPECT_TRUE(CheckNcclVersion(23001).ok());
  const absl::Status old = CheckNcclVersion(22707);
  EXPECT_EQ(old.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(old)),
              HasSubstr("NCCL 2.27.7 was found, 2.28.0 or later is needed"));
}

// One clear line, in a build with NCCL and in one without.
TEST(NcclLibrary, AMissingLibraryIsAnError) {
  const auto api = OpenNccl("libno-such-nccl.so.2");
  EXPECT_EQ(api.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(api.status())),
              AnyOf(HasSubstr("NCCL was not found (libno-such-nccl.so.2"),
                    HasSubstr("this build has no NCCL")));
  EXPECT_EQ(MakeNcclId("libno-such-nccl.so.2").status().code(),
            absl::StatusCode::kFailedPrecondition);
  // A library that is not NCCL.
  EXPECT_EQ(OpenNccl("libm.so.6").status().code(), absl::StatusCode::kFailedPrecondition);
}

// Where there is an NCCL, also without a GPU.
TEST(NcclLibrary, ALibraryIsOpenedOnce) {
  const auto first = OpenNccl();
  const auto second = OpenNccl();
  ASSERT_EQ(first.ok(), second.ok());
  if (!first.ok()) GTEST_SKIP() << ToString(first.status());
  EXPECT_EQ(*first, *second);
  EXPECT_STREQ(std::getenv("NCCL_NVLS_ENABLE"), "0");
}

TEST(NcclComm, BadArgumentsAreErrors) {
  const RealClock clock;
  NcclCommOptions options;
  options.clock = &clock;
  options.library = "libno-such-nccl.so.2";
  EXPECT_FALSE(MakeNcclComm(options).ok());  // No ranks.
  options.size = 2, options.hidden = 64, options.rows_max = 4;
  EXPECT_EQ(MakeNcclComm(options).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace fathom::worker
