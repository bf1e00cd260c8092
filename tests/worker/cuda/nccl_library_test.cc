// What can be tested of NCCL without a GPU: the library that is not there, and the version.
#include "worker/comm/cuda/nccl_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "worker/comm/cuda/nccl_comm.h"

namespace fathom::worker {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

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
