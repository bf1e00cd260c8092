#include "common/process.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

TEST(Process, Sha256OfKnownTexts) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Process, RandomIdsAreIdsAndDiffer) {
  const std::string a = RandomId(), b = RandomId();
  EXPECT_EQ(a.size(), 32u);
  EXPECT_NE(a, b);
  EXPECT_EQ(a.find_first_not_of("0123456789abcdef"), std::string::npos);
}

TEST(Process, ListeningLineIsOneLineOfJson) {
  testing::internal::CaptureStdout();
  PrintListening("router", {{"grpc_port", 8001}, {"http_port", 8000}});
  const std::string line = testing::internal::GetCapturedStdout();
  EXPECT_TRUE(line.starts_with(R"({"role":"router","pid":)")) << line;
  EXPECT_TRUE(line.ends_with(R"(,"grpc_port":8001,"http_port":8000})"
                             "\n"))
      << line;
}

}  // namespace
}  // namespace fathom
