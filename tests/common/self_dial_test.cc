#include "common/self_dial.h"

#include <gtest/gtest.h>

#include <future>

#include "common/listener.h"

namespace fathom {
namespace {

constexpr SelfDialOptions kFast{.interval_ms = 1, .timeout_ms = 20, .failures_max = 3};

Listener Listen(const char* host) {
  auto listener = Listener::Bind(host, 0, "--port");
  EXPECT_TRUE(listener.ok()) << ToString(listener.status());
  return *std::move(listener);
}

OwnPort PortOf(const Listener& listener, const char* host, OwnPort::Speaks speaks) {
  return {"--port", host, listener.port(), speaks};
}

// The kernel completes the connections of a process that accepts none.
TEST(SelfDial, APortThatTakesConnectionsAndSaysNothingIsDeaf) {
  const Listener silent = Listen("127.0.0.1");
  std::promise<std::string> deaf;
  const SelfDial dial({PortOf(silent, "0.0.0.0", OwnPort::Speaks::kHttp2)}, kFast,
                      [&](const std::string& why) { deaf.set_value(why); });
  const std::string why = deaf.get_future().get();
  EXPECT_NE(why.find("--port 0.0.0.0:"), std::string::npos) << why;
  EXPECT_FALSE(dial.hears());
}

TEST(SelfDial, APortThatIsClosedIsDeaf) {
  OwnPort port;
  {
    const Listener gone = Listen("127.0.0.1");
    port = PortOf(gone, "127.0.0.1", OwnPort::Speaks::kHttp2);
  }
  EXPECT_FALSE(Answers(port, 5'000));
}

TEST(SelfDial, EndsAtOnceWhileItWaits) {
  const Listener silent = Listen("127.0.0.1");
  const SelfDial dial({PortOf(silent, "127.0.0.1", OwnPort::Speaks::kHttp2)});
  EXPECT_TRUE(dial.hears());
}

}  // namespace
}  // namespace fathom
