// tests/rpc/fixture.h: a server with one method that echoes, and a client of it.
#pragma once

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "rpc/server.h"

namespace fathom::rpc {

inline constexpr char kEcho[] = "/test.Echo/Echo";

class ServerTest : public ::testing::Test {
 protected:
  void Start(const ServerOptions& options = {.name = "test"}) {
    server_ = std::make_unique<Server>(options);
    server_->AddService("test.Echo");
    server_->AddMethod(kEcho, [](const std::shared_ptr<Call>& call, grpc::ByteBuffer message) {
      call->Reply(std::move(message));
    });
    auto listener = Listener::Bind("127.0.0.1", 0, "--port");
    ASSERT_TRUE(listener.ok()) << ToString(listener.status());
    const absl::Status started = server_->Start(*std::move(listener));
    ASSERT_TRUE(started.ok()) << ToString(started);
  }

  // Waits until the server has seen this many calls without a message. Calls reach the server in
  // any order, also the calls of one connection.
  void WaitForSilentCalls(size_t count) const {
    for (int i = 0; i < 30'000 && server_->calls_without_message() != count; ++i) usleep(1000);
    ASSERT_EQ(server_->calls_without_message(), count);
  }

  // Each channel has a connection of its own.
  std::shared_ptr<grpc::Channel> Dial(bool compress = false) const {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    if (compress) args.SetCompressionAlgorithm(GRPC_COMPRESS_GZIP);
    return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server_->port()),
                                     grpc::InsecureChannelCredentials(), args);
  }

  struct Answer {
    grpc::Status status;
    std::string message;
  };
  // One call with one message.
  static Answer Ask(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                    const std::string& message) {
    grpc::GenericStub stub(channel);
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    grpc::CompletionQueue queue;
    auto call = stub.PrepareUnaryCall(&context, method, ToBuffer(message), &queue);
    call->StartCall();
    Answer answer;
    grpc::ByteBuffer response;
    call->Finish(&response, &answer.status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    if (answer.status.ok()) answer.message = Dump(response);
    return answer;
  }

  std::unique_ptr<Server> server_;
};

// A call whose messages are sent one by one.
class OpenCall {
 public:
  OpenCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method)
      : stub_(channel) {
    context_.set_wait_for_ready(true);
    call_ = stub_.PrepareCall(&context_, method, &queue_);
    call_->StartCall(nullptr);
    Wait();
  }
  ~OpenCall() {
    context_.TryCancel();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }
  bool Write(const std::string& message) {
    call_->Write(ToBuffer(message), nullptr);
    return Wait();
  }
  bool Read(std::string* message) {
    grpc::ByteBuffer buffer;
    call_->Read(&buffer, nullptr);
    if (!Wait()) return false;
    *message = Dump(buffer);
    return true;
  }
  grpc::Status Finish() {
    grpc::Status status;
    call_->Finish(&status, nullptr);
    Wait();
    return status;
  }

 private:
  bool Wait() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

}  // namespace fathom::rpc
