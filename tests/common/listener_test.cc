#include "common/listener.h"

#include <gtest/gtest.h>

#include "tests/common/tcp.h"

namespace fathom {
namespace {

TEST(Listener, ListensOnEitherFamilyWithOrWithoutBrackets) {
  for (const char* host : {"127.0.0.1", "::1", "[::1]", "localhost"}) {
    const auto listener = Listener::Bind(host, 0, "--port");
    ASSERT_TRUE(listener.ok()) << ToString(listener.status());
    EXPECT_GT(listener->port(), 0);
    EXPECT_TRUE(TcpClient(host, listener->port()).connected()) << host;
    // A name has the family that /etc/hosts gives it.
    if (std::string_view(host) == "localhost") continue;
    EXPECT_EQ(listener->is_ipv6(), std::string_view(host).find(':') != std::string_view::npos);
  }
}

TEST(Listener, TheWildcardOfIpv6TakesBoth) {
  const auto listener = Listener::Bind("::", 0, "--port");
  ASSERT_TRUE(listener.ok()) << ToString(listener.status());
  EXPECT_TRUE(TcpClient("127.0.0.1", listener->port()).connected());
  EXPECT_TRUE(TcpClient("::1", listener->port()).connected());
}

TEST(Listener, ErrorsNameTheirCause) {
  const auto first = Listener::Bind("::1", 0, "--port");
  ASSERT_TRUE(first.ok()) << ToString(first.status());
  const auto taken = Listener::Bind("[::1]", first->port(), "--port");
  EXPECT_EQ(taken.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(Message(taken.status()).find("another process listens on [::1]:"),
            std::string_view::npos)
      << Message(taken.status());
  for (const auto& [host, names] : {std::pair{"192.0.2.1", "not an address of this machine"},
                                    {"2001:db8::1", "not an address of this machine"},
                                    {"no such host", "cannot be resolved"},
                                    {"", "cannot be resolved"}}) {
    const auto status = Listener::Bind(host, 0, "--port").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << ToString(status);
    EXPECT_NE(Message(status).find(names), std::string_view::npos) << Message(status);
  }
}

}  // namespace
}  // namespace fathom
