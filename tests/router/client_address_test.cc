// The client that a call counts for.
#include "router/api/client_address.h"

#include <gtest/gtest.h>

namespace fathom::router {
namespace {

TEST(ClientAddress, APeerIsItsAddressOrItsNetwork) {
  EXPECT_EQ(ClientOfPeer("ipv4:10.1.2.3:5678"), "ipv4:10.1.2.3");
  EXPECT_EQ(ClientOfPeer("unix:/tmp/socket"), "unix:/tmp/socket");
  EXPECT_EQ(ClientOfPeer("ipv6:broken:1"), "ipv6:broken");
  const std::string one = ClientOfPeer("ipv6:%5B2001:db8:1:2::1%5D:5678");
  EXPECT_TRUE(one.starts_with("ipv6/64:")) << one;
  EXPECT_EQ(one, ClientOfPeer("ipv6:[2001:db8:1:2:ffff::9]:80"));
  EXPECT_NE(one, ClientOfPeer("ipv6:%5B2001:db8:1:3::1%5D:5678"));
}

TEST(ClientAddress, BehindAProxyOnlyItsOwnWordCounts) {
  const std::string proxy = "ipv4:127.0.0.1:5678";
  EXPECT_EQ(ClientBehindProxy(proxy, "10.1.2.3"), "ipv4:10.1.2.3");
  EXPECT_EQ(ClientBehindProxy(proxy, "6.6.6.6, 10.1.2.3 "), "ipv4:10.1.2.3");
  EXPECT_EQ(ClientBehindProxy(proxy, "2001:db8:1:2::1"),
            ClientOfPeer("ipv6:%5B2001:db8:1:2::7%5D:1"));
  for (const char* none : {"", " ", ",", "10.1.2.3,", "unknown", "10.1.2.3:80"}) {
    EXPECT_EQ(ClientBehindProxy(proxy, none), "ipv4:127.0.0.1") << none;
  }
}

}  // namespace
}  // namespace fathom::router
