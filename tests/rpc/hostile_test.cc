// The server with hostile clients, in raw HTTP/2 frames that no library would send.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <thread>
#include <vector>

#include "tests/common/tcp.h"
#include "tests/rpc/fixture.h"

namespace fathom::rpc {
namespace {

constexpr char kDataFrame = 0, kHeaders = 1, kReset = 3, kSettings = 4, kContinuation = 9;
constexpr char kEndHeaders = 4;

std::string Number(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
          static_cast<char>(value >> 8), static_cast<char>(value)};
}

std::string Frame(char kind, char flags, uint32_t stream, const std::string& payload) {
  return Number(static_cast<uint32_t>(payload.size())).substr(1) + kind + flags + Number(stream) +
         payload;
}

// A header that is not added to the compression table.
std::string Header(const std::string& name, const std::string& value) {
  return std::string(1, '\0') + static_cast<char>(name.size()) + name +
         static_cast<char>(value.size()) + value;
}

std::string CallHeaders(const std::string& path) {
  return Header(":method", "POST") + Header(":scheme", "http") + Header(":path", path) +
         Header(":authority", "x") + Header("content-type", "application/grpc") +
         Header("te", "trailers");
}

std::string Preface() { return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(kSettings, 0, 0, ""); }

int64_t Threads() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
}

class HostileTest : public ServerTest {
 protected:
  // From another address than the well-behaved clients, because an address that was cut waits.
  TcpClient Connect() const { return {"127.0.0.1", server_->port(), "127.0.0.2"}; }
  // Asks over a separate connection.
  ::testing::AssertionResult AnswersOthers() {
    const Answer answer = Ask(Dial(), kEcho, "hello");
    if (answer.message == "hello") return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure()
           << "status " << answer.status.error_code() << ": " << answer.status.error_message()
           << ", message '" << answer.message << "'";
  }

  // Sends `frames(stream)` until the server closes the connection, at most `most` times.
  template <class Frames>
  bool IsCut(const Frames& frames, int most) {
    TcpClient client = Connect();
    client.Write(Preface());
    for (int i = 0; i < most; ++i) {
      if (!client.Write(frames(static_cast<uint32_t>(2 * i + 1)))) return true;
    }
    return client.WaitClosed();
  }
};

TEST_F(HostileTest, RapidResetIsCutAndOthersGoOn) {
  Start({.name = "test", .connections = {.abandoned_burst = 100, .stray_bytes_burst = 64 << 10}});
  const auto channel = Dial();
  const std::string headers = CallHeaders(kEcho);
  EXPECT_TRUE(IsCut(
      [&](uint32_t stream) {
        return Frame(kHeaders, kEndHeaders, stream, headers) + Frame(kReset, 0, stream, Number(8));
      },
      100'000));
  EXPECT_EQ(server_->stats().cut_total, 1);
  EXPECT_EQ(Ask(channel, kEcho, "hello").message, "hello");
  EXPECT_TRUE(AnswersOthers());
}

TEST_F(HostileTest, StreamsWithoutEndAreCutAndOthersGoOn) {
  Start();
  const std::string headers = CallHeaders(kEcho);
  EXPECT_TRUE(IsCut([&](uint32_t stream) { return Frame(kHeaders, kEndHeaders, stream, headers); },
                    100'000));
  EXPECT_EQ(server_->stats().cut_total, 1);
  EXPECT_TRUE(AnswersOthers());
}

// gRPC limits a header frame but not a header. Without the watching thread the flood would take
// gigabytes, and the server would answer no client for seconds after the end of the flood.
TEST_F(HostileTest, AHeaderWithoutEndIsCutAndOthersGoOn) {
  Start({.name = "test", .connections = {.barred_after_cut = std::chrono::milliseconds(0)}});
  const std::string headers = CallHeaders(kEcho);
  std::string more;
  for (int i = 0; i < 100; ++i) more += Header("x", std::string(100, 'y'));
  for (const bool other_call : {false, true}) {
    SCOPED_TRACE(other_call ? "another call of the connection is open" : "the only call");
    int frames = 0;
    EXPECT_TRUE(IsCut(
        [&](uint32_t stream) {
          ++frames;
          const uint32_t endless = other_call ? 3 : 1;
          if (stream > endless) return Frame(kContinuation, 0, endless, more);
          return Frame(kHeaders, stream == endless ? 0 : kEndHeaders, stream, headers);
        },
        100'000));
    EXPECT_LT(frames, 20'000);  // 200 MB, also when the watching thread waits for a core.
    EXPECT_TRUE(AnswersOthers());
  }
  EXPECT_EQ(server_->stats().cut_total, 2);
}

TEST_F(HostileTest, AnAddressThatWasCutWaitsAndOthersGoOn) {
  Start({.name = "test", .connections = {.barred_after_cut = std::chrono::hours(1)}});
  const std::string headers = CallHeaders(kEcho);
  EXPECT_TRUE(IsCut([&](uint32_t stream) { return Frame(kHeaders, kEndHeaders, stream, headers); },
                    100'000));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Connect().WaitClosed());
  EXPECT_EQ(server_->stats().refused_total, 3);
  EXPECT_TRUE(AnswersOthers());
}

// gRPC works on a flood in the thread that passed its connection, and Stop waits for these threads.
TEST_F(HostileTest, StopEndsWhileFloodsGoOn) {
  Start({.name = "test", .connections = {.barred_after_cut = std::chrono::milliseconds(0)}});
  const std::string headers = CallHeaders(kEcho);
  const std::string more = Header("x", std::string(100, 'y'));
  std::atomic<bool> stopped = false;
  std::vector<std::thread> floods;
  for (int i = 0; i < 4; ++i) {
    floods.emplace_back([&, port = server_->port()] {
      while (!stopped.load()) {
        TcpClient client("127.0.0.1", port, "127.0.0.2");
        client.Write(Preface() + Frame(kHeaders, 0, 1, headers));
        while (client.Write(Frame(kContinuation, 0, 1, more))) {
        }
      }
    });
  }
  for (int i = 0; i < 30'000 && server_->stats().cut_total < 4; ++i) usleep(1000);
  EXPECT_GE(server_->stats().cut_total, 4);
  server_->Stop(0);
  stopped = true;
  server_.reset();  // Connections that nothing has accepted end with the listener.
  for (std::thread& flood : floods) flood.join();
}

// A connection that only sends messages, for a long time, is not hostile.
TEST_F(HostileTest, ManyMessagesAreNoStrayBytes) {
  Start({.name = "test", .connections = {.stray_bytes_per_second = 1 << 10}});
  const auto channel = Dial();
  const std::string large(1 << 20, 'x');
  for (int i = 0; i < 100; ++i) {
    const Answer answer = Ask(channel, kEcho, large);
    ASSERT_TRUE(answer.status.ok()) << i << ": " << answer.status.error_message();
    ASSERT_TRUE(answer.message == large);
  }
  EXPECT_EQ(server_->stats().cut_total, 0);
}

TEST_F(HostileTest, IdleConnectionsGiveWayToNewOnes) {
  Start({.name = "test", .connections = {.connections_max = 16}});
  const auto busy = Dial();
  OpenCall open(busy, kEcho);  // It has a call, so it stays.
  WaitForSilentCalls(1);
  std::vector<TcpClient> idle;
  for (int i = 0; i < 200; ++i) {
    idle.push_back(Connect());
    if (i % 2 == 0) idle.back().Write(Preface());
    if (i % 50 == 49) {
      EXPECT_TRUE(AnswersOthers());
    }
  }
  EXPECT_TRUE(idle.front().WaitClosed());
  EXPECT_GE(server_->stats().evicted_total, 100);
  EXPECT_LE(server_->stats().open, 18);  // One may be accepted while another one is being closed.
  ASSERT_TRUE(open.Write("still there"));
  std::string message;
  ASSERT_TRUE(open.Read(&message));
  EXPECT_EQ(message, "still there");
}

TEST_F(HostileTest, ConnectionsThatCloseAreForgotten) {
  Start();
  for (int i = 0; i < 50; ++i) {
    TcpClient client = Connect();
    client.Write(Preface());
    EXPECT_FALSE(client.ReadUntil(std::string(1, kSettings)).empty());
  }
  EXPECT_TRUE(AnswersOthers());
  for (int i = 0; i < 3000 && server_->stats().open > 1; ++i) EXPECT_TRUE(AnswersOthers());
  EXPECT_LE(server_->stats().open, 2);  // The connection of the last client may still be closing.
}

TEST_F(HostileTest, StreamsOfReflectionHoldNoThread) {
  Start({.name = "test", .reflection_streams_max = 1 << 20});
  EXPECT_TRUE(AnswersOthers());
  const int64_t before = Threads();
  const std::string headers =
      CallHeaders("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
  const std::string ask = std::string("\0\0\0\0\3\x3a\1*", 8);  // list_services: "*"
  std::vector<TcpClient> clients;
  for (int c = 0; c < 3; ++c) {
    clients.push_back(Connect());
    clients.back().Write(Preface() + Frame(kSettings, 1, 0, ""));
    for (uint32_t i = 0; i < 1000; ++i) {
      clients.back().Write(Frame(kHeaders, kEndHeaders, 2 * i + 1, headers) +
                           Frame(kDataFrame, 0, 2 * i + 1, ask));
    }
    EXPECT_FALSE(clients.back().ReadUntil("test.Echo").empty());
  }
  EXPECT_LE(Threads(), before + 8);
  EXPECT_TRUE(AnswersOthers());
}

}  // namespace
}  // namespace fathom::rpc
