#include "common/address.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

TEST(Address, ParsingAndFormattingAreInverse) {
  for (const char* text : {"127.0.0.1:8001", "[::1]:8001", "[::]:1", "localhost:65535",
                           "[fe80::1%eth0]:9", "router.fathom.svc:8001"}) {
    const auto address = ParseHostPort(text);
    ASSERT_TRUE(address.ok()) << ToString(address.status());
    EXPECT_EQ(FormatHostPort(address->host, address->port), text);
    EXPECT_EQ(address->host.find_first_of("[]"), std::string::npos);
  }
}

TEST(Address, BracketsOfAHostAloneAreTakenOff) {
  EXPECT_EQ(BareHost("[::1]"), "::1");
  EXPECT_EQ(BareHost("::1"), "::1");
  EXPECT_EQ(BareHost("localhost"), "localhost");
  EXPECT_EQ(FormatHostPort("[::1]", 0), "[::1]:0");
  EXPECT_EQ(FormatHostPort("10.0.0.1", 80), "10.0.0.1:80");
}

TEST(Address, WhatIsWrongIsNamed) {
  for (const auto& [text, names] : {std::pair{"", "no port"},
                                    {"::1", "brackets"},
                                    {"::1:8001", "brackets"},
                                    {"[::1]", "no port"},
                                    {"host", "no port"},
                                    {":8001", "no host"},
                                    {"host:", "the port ''"},
                                    {"host:0", "1 to 65535"},
                                    {"host:65536", "1 to 65535"},
                                    {"host:+1", "1 to 65535"},
                                    {"host: 1", "1 to 65535"},
                                    {"[]:1", "not a host"},
                                    {"http://a:1", "brackets"},
                                    {"a/b:1", "not a host"},
                                    {"[::1:1", "brackets"}}) {
    const auto address = ParseHostPort(text);
    ASSERT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(Message(address.status()).find(names), std::string_view::npos)
        << Message(address.status());
  }
}

TEST(Address, ListsAreSplitAtCommasAndErrorsNameTheFlag) {
  const auto all = ParseAddresses("--scheduler", {"a:1,[::1]:2", "c:3"});
  ASSERT_TRUE(all.ok()) << ToString(all.status());
  EXPECT_EQ(*all, (std::vector<std::string>{"a:1", "[::1]:2", "c:3"}));
  const auto wrong = ParseAddresses("--scheduler", {"a:1,::1:2"});
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Message(wrong.status()).starts_with("--scheduler a:1,::1:2: '::1:2'"))
      << Message(wrong.status());
  EXPECT_FALSE(ParseAddresses("--scheduler", {}).ok());
}

TEST(Address, WildcardsAreDialledAtLoopback) {
  EXPECT_EQ(DialHost("0.0.0.0"), "127.0.0.1");
  EXPECT_EQ(DialHost("::"), "::1");
  EXPECT_EQ(DialHost("[::]"), "::1");
  EXPECT_EQ(DialHost("[::1]"), "::1");
  EXPECT_EQ(DialHost("10.1.2.3"), "10.1.2.3");
}

}  // namespace
}  // namespace fathom
