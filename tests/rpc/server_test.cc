// The server with well-behaved clients: calls, health, reflection, and refusals by name.
#include "rpc/server.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "grpc/health/v1/health.pb.h"
#include "grpc/reflection/v1/reflection.pb.h"
#include "rpc/reflection.h"
#include "tests/rpc/fixture.h"

namespace fathom::rpc {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;

TEST_F(ServerTest, AnswersAndRefusesByName) {
  Start();
  const auto channel = Dial();
  const std::string large(3 << 20, 'x');
  EXPECT_EQ(Ask(channel, kEcho, "hello").message, "hello");
  EXPECT_EQ(Ask(channel, kEcho, large).message, large);
  const auto unknown = Ask(channel, "/test.Echo/Other", "x").status;
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_NE(unknown.error_message().find("/test.Echo/Other"), std::string::npos);
  EXPECT_EQ(Ask(channel, kEcho, std::string(5 << 20, 'x')).status.error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

// The message is not unpacked; otherwise it would be refused because of its unpacked size.
TEST_F(ServerTest, CompressedMessagesAreRefusedByName) {
  Start();
  for (const char* method : {kEcho, "/grpc.health.v1.Health/Check"}) {
    const auto status = Ask(Dial(/*compress=*/true), method, std::string(1 << 20, '\0')).status;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << status.error_message();
    EXPECT_NE(status.error_message().find("ompression algorithm 'gzip'"), std::string::npos)
        << status.error_message();
  }
}

HealthCheckResponse::ServingStatus StatusIn(const std::string& bytes) {
  HealthCheckResponse response;
  EXPECT_TRUE(response.ParseFromString(bytes));
  return response.status();
}

TEST_F(ServerTest, HealthIsToldAndWatched) {
  Start();
  const auto channel = Dial();
  HealthCheckRequest request;
  EXPECT_EQ(StatusIn(Ask(channel, "/grpc.health.v1.Health/Check", "").message),
            HealthCheckResponse::NOT_SERVING);
  request.set_service("test.Echo");
  OpenCall watch(channel, "/grpc.health.v1.Health/Watch");
  ASSERT_TRUE(watch.Write(request.SerializeAsString()));
  std::string bytes;
  ASSERT_TRUE(watch.Read(&bytes));
  EXPECT_EQ(StatusIn(bytes), HealthCheckResponse::NOT_SERVING);
  server_->SetServing(true);
  ASSERT_TRUE(watch.Read(&bytes));
  EXPECT_EQ(StatusIn(bytes), HealthCheckResponse::SERVING);
  EXPECT_EQ(
      StatusIn(Ask(channel, "/grpc.health.v1.Health/Check", request.SerializeAsString()).message),
      HealthCheckResponse::SERVING);
  request.set_service("none");
  EXPECT_EQ(
      Ask(channel, "/grpc.health.v1.Health/Check", request.SerializeAsString()).status.error_code(),
      grpc::StatusCode::NOT_FOUND);
  server_->Stop(0);  // The watching client is still connected.
  EXPECT_FALSE(watch.Read(&bytes));
}

TEST_F(ServerTest, ReflectionAnswersInBothVersions) {
  Start();
  for (const char* method : kReflectionMethods) {
    OpenCall call(Dial(), method);
    ServerReflectionRequest request;
    ServerReflectionResponse response;
    std::string bytes;
    const auto ask = [&] {
      return call.Write(request.SerializeAsString()) && call.Read(&bytes) &&
             response.ParseFromString(bytes);
    };
    request.set_list_services("*");
    ASSERT_TRUE(ask());
    std::vector<std::string> names;
    for (const auto& one : response.list_services_response().service()) names.push_back(one.name());
    EXPECT_EQ(names,
              (std::vector<std::string>{"grpc.health.v1.Health",
                                        "grpc.reflection.v1.ServerReflection", "test.Echo"}));
    request.set_file_containing_symbol("grpc.health.v1.Health");
    ASSERT_TRUE(ask());
    EXPECT_EQ(response.file_descriptor_response().file_descriptor_proto_size(), 1);
    request.set_file_containing_symbol("no.such.Symbol");
    ASSERT_TRUE(ask());
    EXPECT_EQ(response.error_response().error_code(), grpc::StatusCode::NOT_FOUND);
    request.clear_message_request();
    ASSERT_TRUE(ask());
    EXPECT_EQ(response.error_response().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
}

TEST_F(ServerTest, CallsWhoseMessageNeverComesTimeOut) {
  Start({.name = "test", .message_timeout_ms = 50});
  OpenCall silent(Dial(), kEcho);
  const grpc::Status status = silent.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_NE(status.error_message().find("50 ms"), std::string::npos) << status.error_message();
}

// Silent calls of another connection do not end a client's own call.
TEST_F(ServerTest, TheConnectionWithTheMostSilentCallsGivesWay) {
  Start({.name = "test", .message_timeout_ms = 600'000, .calls_without_message_max = 4});
  OpenCall slow(Dial(), kEcho);  // The oldest of all.
  WaitForSilentCalls(1);
  const auto flood = Dial();
  std::vector<std::unique_ptr<OpenCall>> silent;
  for (size_t i = 0; i < 4; ++i) {
    silent.push_back(std::make_unique<OpenCall>(flood, kEcho));
    WaitForSilentCalls(std::min<size_t>(i + 2, 4));
  }
  EXPECT_EQ(silent[0]->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  std::string message;
  ASSERT_TRUE(slow.Write("at last"));
  ASSERT_TRUE(slow.Read(&message));
  EXPECT_EQ(message, "at last");
}

// The call that has waited the longest is ended, so that other calls are served.
TEST_F(ServerTest, CallsWhoseMessageNeverComesAreBounded) {
  Start({.name = "test", .message_timeout_ms = 600'000, .calls_without_message_max = 4});
  const auto channel = Dial();
  std::vector<std::unique_ptr<OpenCall>> silent;
  for (size_t i = 0; i < 5; ++i) {
    silent.push_back(std::make_unique<OpenCall>(channel, kEcho));
    WaitForSilentCalls(std::min<size_t>(i + 1, 4));
  }
  EXPECT_EQ(silent[0]->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Ask(Dial(), kEcho, "hello").message, "hello");
  std::string message;
  ASSERT_TRUE(silent[4]->Write("now"));
  ASSERT_TRUE(silent[4]->Read(&message));
  EXPECT_EQ(message, "now");
}

}  // namespace
}  // namespace fathom::rpc
