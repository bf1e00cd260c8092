#include "http/client.h"

#include <netdb.h>
#include <sys/resource.h>

#include <set>

#include "http/server.h"
#include "tests/http/http_client.h"

namespace fathom::http {
namespace {

Routes SomeRoutes() {
  Routes routes;
  routes.Add("GET", "/a", [](const Request& request) {
    return Response{200, "text/plain", "query " + request.query, {}};
  });
  routes.Add("GET", "/long", [](const Request&) {
    return Response{200, "text/plain", std::string(1000, 'x'), {}};
  });
  return routes;
}

class HttpClient : public testing::Test {
 protected:
  HttpClient() : server_(MakeServer(&port_)) {}

  std::string Address() const { return "127.0.0.1:" + std::to_string(port_); }

  int port_ = 0;

 private:
  static std::unique_ptr<Server> MakeServer(int* port) {
    Listener listener = Listen();
    *port = listener.port();
    return std::make_unique<Server>(std::move(listener), SomeRoutes());
  }
  const std::unique_ptr<Server> server_;
};

TEST_F(HttpClient, GetsStatusAndBody) {
  const auto found = GetAt(Address(), "/a?b=c", {});
  ASSERT_TRUE(found.ok()) << ToString(found.status());
  EXPECT_EQ(found->status, 200);
  EXPECT_EQ(found->body, "query b=c");
  EXPECT_EQ(GetAt(Address(), "/none", {})->status, 404);
}

// "localhost" is ::1 and 127.0.0.1 on most machines. A server that has only one of them is found,
// whichever address comes first.
TEST(HttpClientOfAName, TriesEveryAddress) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  ASSERT_EQ(getaddrinfo("localhost", "80", &hints, &found), 0);
  std::set<int> families;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    families.insert(one->ai_family);
  }
  freeaddrinfo(found);
  for (const int family : families) {
    const char* const host = family == AF_INET6 ? "::1" : "127.0.0.1";
    Listener listener = Listen(host);
    const std::string address = "localhost:" + std::to_string(listener.port());
    const Server server(std::move(listener), SomeRoutes());
    const auto reply = GetAt(address, "/a", {});
    EXPECT_TRUE(reply.ok()) << host << ": " << ToString(reply.status());
  }
}

TEST_F(HttpClient, PostsABody) {
  const auto refused = Post({"127.0.0.1", port_, "/a"}, "text/plain", "body", {});
  ASSERT_TRUE(refused.ok()) << ToString(refused.status());
  EXPECT_EQ(refused->status, 405);
}

TEST_F(HttpClient, RefusesALongerAnswerThanItsLimit) {
  EXPECT_TRUE(GetAt(Address(), "/long", {.body_bytes_max = 1000}).ok());
  const auto found = GetAt(Address(), "/long", {.body_bytes_max = 999});
  EXPECT_EQ(found.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(Message(found.status()).find("more than 999 bytes"), std::string_view::npos);
}

// Without a descriptor the library throws; its caller gets an error.
TEST_F(HttpClient, ALackOfDescriptorsIsAnError) {
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto found = GetAt(Address(), "/a", {});
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(found.status().code(), absl::StatusCode::kUnavailable);
}

TEST(HttpClientOfAHangingServer, TimesOutOrIsStopped) {
  const Listener hangs = Listen();
  const Url url{"127.0.0.1", hangs.port(), "/"};
  EXPECT_EQ(Get(url, {.timeout_ms = 20}).status().code(), absl::StatusCode::kDeadlineExceeded);
  int asked = 0;
  const CallLimits until_third{.timeout_ms = 3'600'000, .stopped = [&] { return ++asked == 3; }};
  EXPECT_EQ(Get(url, until_third).status().code(), absl::StatusCode::kAborted);
}

TEST(HttpClientOfNoServer, NamesTheAddress) {
  const std::string address = "127.0.0.1:" + std::to_string(Listen().port());  // Closed again.
  const auto found = GetAt(address, "/", {});
  EXPECT_EQ(found.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(Message(found.status()).starts_with(address)) << Message(found.status());
  EXPECT_EQ(GetAt("nonsense", "/", {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HttpUrl, HasAnAddressAndAPath) {
  const auto url = ParseUrl("http://[::1]:4318/custom?x=1");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, 4318);
  EXPECT_EQ(url->target, "/custom?x=1");
  EXPECT_EQ(ParseUrl("http://a")->port, 80);
  for (const char* bad : {"a:1", "https://a:1", "http://", "http://a:b", "http://a:1/b\r\nc: d",
                          "http://a:1/b c", "http://a:1/\x80"}) {
    EXPECT_FALSE(ParseUrl(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace fathom::http
