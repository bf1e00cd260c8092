// ReadGate alone, and as gRPC's reads meet it in a server.
#include "rpc/read_gate.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace fathom::rpc {
namespace {

// `count` HEADERS frames without payload; the first one opens stream `first`.
std::string Calls(uint32_t first, int count) {
  std::string frames;
  for (int i = 0; i < count; ++i) {
    const uint32_t stream = first + 2 * static_cast<uint32_t>(i);
    frames += {0,
               0,
               0,
               1,
               4,
               static_cast<char>(stream >> 24),
               static_cast<char>(stream >> 16),
               static_cast<char>(stream >> 8),
               static_cast<char>(stream)};
  }
  return frames;
}

constexpr char kPreface[] = "PPPPPPPPPPPPPPPPPPPPPPPP";  // Of 24 bytes.

bool Admit(ReadGate& gate, const std::string& bytes) {
  return gate.Admit(std::as_bytes(std::span(bytes)));
}

// No time is forgiven, so that the tests do not depend on the clock.
constexpr GateLimits kLimits{.unreported_max = 10,
                             .forgiven_per_second = 0,
                             .header_bytes_max = 100,
                             .controls_burst = 5,
                             .controls_per_second = 0};

TEST(ReadGate, CallsThatAreReportedAreNoFlood) {
  std::vector<std::string> floods;
  ReadGate gate(kLimits, [&](const char* why) { floods.emplace_back(why); });
  EXPECT_TRUE(Admit(gate, kPreface));
  uint32_t stream = 1;
  for (int round = 0; round < 100; ++round, stream += 20) {
    EXPECT_TRUE(Admit(gate, Calls(stream, 10)));
    EXPECT_EQ(gate.unreported(), 10);
    for (int i = 0; i < 10; ++i) gate.CallReported();
    EXPECT_EQ(gate.unreported(), 0);
  }
  EXPECT_TRUE(Admit(gate, Calls(stream, 10)));
  EXPECT_FALSE(Admit(gate, Calls(stream + 20, 1)));
  EXPECT_FALSE(Admit(gate, Calls(stream + 22, 1)));
  EXPECT_EQ(floods, std::vector<std::string>{"it begins calls without end"});
}

TEST(ReadGate, HeadersAndControlsWithoutEndAreFloods) {
  std::vector<std::string> floods;
  const auto flooded = [&](const char* why) { floods.emplace_back(why); };
  const std::string part = std::string{0, 0, 60, 1, 0, 0, 0, 0, 1} + std::string(60, 'x');
  const std::string more = std::string{0, 0, 60, 9, 0, 0, 0, 0, 1} + std::string(60, 'x');
  ReadGate header(kLimits, flooded);
  EXPECT_TRUE(Admit(header, kPreface + part));
  EXPECT_FALSE(Admit(header, more));
  const std::string ping = std::string{0, 0, 8, 6, 0, 0, 0, 0, 0} + std::string(8, 'x');
  ReadGate controls(kLimits, flooded);
  EXPECT_TRUE(Admit(controls, kPreface + ping + ping + ping + ping + ping));
  EXPECT_FALSE(Admit(controls, ping));
  EXPECT_EQ(floods, (std::vector<std::string>{"it sends a header without end",
                                              "it sends settings and pings without end"}));
}

// A read as gRPC does it.
ssize_t Read(int fd) {
  std::array<char, 4096> bytes;
  iovec part{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  return recvmsg(fd, &message, 0);
}

void Write(int fd, const std::string& bytes) {
  ASSERT_EQ(write(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
}

TEST(ReadGate, AFloodIsNotReadAndAnotherSocketOfTheSameNumberIs) {
  const std::string flood = kPreface + Calls(1, 11);
  std::array<int, 2> pair{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()), 0);
  int floods = 0;
  const auto gate = std::make_shared<ReadGate>(kLimits, [&](const char*) { ++floods; });
  OpenGate(pair[0], gate);
  Write(pair[1], kPreface);
  EXPECT_EQ(Read(pair[0]), 24);
  Write(pair[1], Calls(1, 11));
  EXPECT_EQ(Read(pair[0]), -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(floods, 1);

  // The gate is still there when its descriptor is given to another socket.
  std::array<int, 2> other{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, other.data()), 0);
  ASSERT_EQ(dup2(other[0], pair[0]), pair[0]);
  for (int i = 0; i < 3; ++i) {
    Write(other[1], flood);
    EXPECT_EQ(Read(pair[0]), static_cast<ssize_t>(flood.size()));
  }
  CloseGate(pair[0], gate.get());
  for (const int fd : {pair[0], pair[1], other[0], other[1]}) close(fd);
}

}  // namespace
}  // namespace fathom::rpc
