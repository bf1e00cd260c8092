// The client against routers in this process that break, are silent, skip positions and forget
// sessions.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <mutex>

#include "client/client.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "inference.grpc.pb.h"

namespace fathom::client {
namespace {

using Writer = grpc::ServerWriter<v1::GenerateResponse>;
// The behaviour of one stream: what it sends from the asked position on, and its final status.
using Behaviour = std::function<grpc::Status(grpc::ServerContext*, int32_t from, Writer*)>;

constexpr int kLength = 20;

void SendStarted(Writer* writer) {
  v1::GenerateResponse frame;
  frame.mutable_started()->set_request_id("r1");
  frame.mutable_started()->set_seed(99);
  writer->Write(frame);
}
void SendToken(int32_t position, Writer* writer) {
  v1::GenerateResponse frame;
  frame.mutable_tokens()->set_position(position);
  frame.mutable_tokens()->add_ids(100 + position);
  frame.mutable_tokens()->set_text(std::string(1, static_cast<char>('a' + position)));
  writer->Write(frame);
}
void SendFinish(Writer* writer) {
  v1::GenerateResponse frame;
  frame.mutable_finish()->set_reason(v1::FINISH_REASON_LENGTH);
  frame.mutable_finish()->set_position(kLength);
  writer->Write(frame);
}
// Sends the rest correctly.
grpc::Status Rest(grpc::ServerContext*, int32_t from, Writer* writer) {
  SendStarted(writer);
  for (int32_t i = from; i < kLength; ++i) SendToken(i, writer);
  SendFinish(writer);
  return grpc::Status::OK;
}
// Breaks after some tokens.
grpc::Status BreakAfter7(grpc::ServerContext*, int32_t from, Writer* writer) {
  SendStarted(writer);
  for (int32_t i = from; i < from + 7; ++i) SendToken(i, writer);
  return {grpc::StatusCode::UNAVAILABLE, "going down"};
}

class FakeRouter final : public v1::Inference::Service {
 public:
  explicit FakeRouter(int port = 0) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeRouter() override { server_->Shutdown(std::chrono::system_clock::now()); }

  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        Writer* writer) override {
    {
      std::lock_guard lock(mutex_);
      generated.push_back(*request);
    }
    return on_generate(context, 0, writer);
  }
  grpc::Status Resume(grpc::ServerContext* context, const v1::ResumeRequest* request,
                      Writer* writer) override {
    {
      std::lock_guard lock(mutex_);
      resumed.push_back(*request);
    }
    return on_resume(context, request->next_positions(0), writer);
  }

  Behaviour on_generate = Rest;
  Behaviour on_resume = Rest;
  std::vector<v1::GenerateRequest> generated;
  std::vector<v1::ResumeRequest> resumed;

 private:
  std::mutex mutex_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

void ExpectWhole(const absl::StatusOr<Answer>& answer) {
  ASSERT_TRUE(answer.ok()) << ToString(answer.status());
  const SequenceResult& result = answer->sequences[0];
  EXPECT_EQ(result.text, "abcdefghijklmnopqrst");
  ASSERT_EQ(result.ids.size(), static_cast<size_t>(kLength));
  for (int i = 0; i < kLength; ++i) EXPECT_EQ(result.ids[i], 100 + i);
  ASSERT_TRUE(result.finish.has_value());
  EXPECT_EQ(result.finish->kind, FinishKind::kLength);
}

GenerateRequest Question() {
  GenerateRequest request;
  request.prompt = "q";
  return request;
}

TEST(ClientStreamTest, UndisturbedIsOneCall) {
  FakeRouter router;
  Client client({.servers = {router.address()}});
  std::string heard;
  const auto answer = client.Generate(Question(), [&](const Event& event) {
    if (const auto* tokens = std::get_if<Tokens>(&event)) heard += tokens->text;
    return true;
  });
  ExpectWhole(answer);
  EXPECT_EQ(heard, "abcdefghijklmnopqrst");
  EXPECT_EQ(answer->counts.attempts, 1);
  EXPECT_EQ(router.generated[0].request_id().size(), 32u) << "the client draws the id";
  EXPECT_TRUE(router.generated[0].sampling().has_seed()) << "and the seed";
}

TEST(ClientStreamTest, EverySamplingParameterIsSent) {
  FakeRouter router;
  Client client({.servers = {router.address()}});
  GenerateRequest request = Question();
  int number = 0;
  ForEachSamplingField(
      [&](const SamplingField&, auto, auto option) { request.sampling.*option = ++number; });
  ExpectWhole(client.Generate(request, [](const Event&) { return true; }));
  const SamplingOptions sent = SamplingFieldsOf(router.generated[0].sampling());
  EXPECT_EQ(sent, static_cast<const SamplingOptions&>(request.sampling));
}

TEST(ClientStreamTest, ABrokenStreamGoesOnElsewhere) {
  FakeRouter first, second;
  first.on_generate = BreakAfter7;
  Client client({.servers = {first.address(), second.address()}});
  std::string heard;
  const auto answer = client.Generate(Question(), [&](const Event& event) {
    if (const auto* tokens = std::get_if<Tokens>(&event)) heard += tokens->text;
    return true;
  });
  ExpectWhole(answer);
  EXPECT_EQ(heard, "abcdefghijklmnopqrst");
  EXPECT_EQ(answer->counts.attempts, 2);
  ASSERT_EQ(second.resumed.size(), 1u);
  EXPECT_EQ(second.resumed[0].request_id(), "r1");
  EXPECT_EQ(second.resumed[0].next_positions(0), 7);
}

TEST(ClientStreamTest, ADeadAddressIsPassedOver) {
  std::string dead;
  { dead = FakeRouter().address(); }
  FakeRouter router;
  Client client({.servers = {dead, router.address()}});
  ExpectWhole(client.Generate(Question()));
}

TEST(ClientStreamTest, ARouterThatComesBackIsFound) {
  auto router = std::make_unique<FakeRouter>();
  const int port = router->port();
  Client client({.servers = {router->address()}, .first_budget_ms = 60'000});
  ExpectWhole(client.Generate(Question()));
  router.reset();
  Client impatient({.servers = {"127.0.0.1:" + std::to_string(port)}, .first_budget_ms = 0});
  EXPECT_TRUE(absl::IsUnavailable(impatient.Generate(Question()).status()));
  router = std::make_unique<FakeRouter>(port);
  ExpectWhole(client.Generate(Question()));
}

TEST(ClientStreamTest, SilenceCountsAsBroken) {
  FakeRouter first, second;
  first.on_generate = [](grpc::ServerContext* context, int32_t, Writer* writer) {
    SendStarted(writer);
    SendToken(0, writer);
    while (!context->IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  };
  Client client({.servers = {first.address(), second.address()}, .silence_ms = 50});
  ExpectWhole(client.Generate(Question()));
  EXPECT_EQ(second.resumed.size(), 1u);
}

TEST(ClientStreamTest, AGapIsAskedForAgain) {
  FakeRouter router;
  router.on_generate = [](grpc::ServerContext*, int32_t, Writer* writer) {
    SendStarted(writer);
    SendToken(0, writer);
    SendToken(2, writer);
    return grpc::Status::OK;
  };
  Client client({.servers = {router.address()}});
  const auto answer = client.Generate(Question());
  ExpectWhole(answer);
  EXPECT_EQ(answer->counts.gaps, 1);
  EXPECT_EQ(router.resumed[0].next_positions(0), 1);
}

TEST(ClientStreamTest, AnEndWithoutFinishIsNoSuccess) {
  FakeRouter router;
  router.on_generate = [](grpc::ServerContext*, int32_t, Writer* writer) {
    SendStarted(writer);
    for (int i = 0; i < kLength; ++i) SendToken(i, writer);
    return grpc::Status::OK;
  };
  Client client({.servers = {router.address()}});
  const auto answer = client.Generate(Question());
  ExpectWhole(answer);
  EXPECT_EQ(router.resumed[0].next_positions(0), kLength) << "only the end is missing";
}

TEST(ClientStreamTest, WhatNobodyKnowsIsAskedAgainWithItsSeed) {
  FakeRouter router;
  int calls = 0;
  router.on_generate = [&](grpc::ServerContext* context, int32_t from, Writer* writer) {
    return ++calls == 1 ? BreakAfter7(context, from, writer) : Rest(context, from, writer);
  };
  router.on_resume = [](grpc::ServerContext*, int32_t, Writer*) {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such request");
  };
  Client client({.servers = {router.address()}});
  const auto answer = client.Generate(Question());
  ExpectWhole(answer);
  EXPECT_EQ(answer->counts.dropped_tokens, 7);
  ASSERT_EQ(router.generated.size(), 2u);
  EXPECT_EQ(router.generated[1].request_id(), "r1");
  EXPECT_EQ(router.generated[1].sampling().seed(), 99u);
}

grpc::Status Refusal(grpc::StatusCode code, const std::string& reason, int retry_after_ms) {
  google::rpc::Status rpc;
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  rpc.add_details()->PackFrom(info);
  if (retry_after_ms > 0) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_nanos(retry_after_ms * 1'000'000);
    rpc.add_details()->PackFrom(retry);
  }
  return {code, reason, rpc.SerializeAsString()};
}

// Answers of a router to a retry of an answer that has begun, after which another try succeeds.
TEST(ClientStreamTest, AnAnswerThatHasBegunOutlivesFullQueuesAndCancelledCalls) {
  const grpc::Status hurdles[] = {
      Refusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL", 1),
      {grpc::StatusCode::CANCELLED, "the router ends"},
      {grpc::StatusCode::INTERNAL, "Received RST_STREAM with error code 2"}};
  for (const grpc::Status& hurdle : hurdles) {
    FakeRouter router;
    int generated = 0;
    router.on_generate = [&](grpc::ServerContext* context, int32_t from, Writer* writer) {
      ++generated;
      if (generated == 1) return BreakAfter7(context, from, writer);
      return generated == 2 ? hurdle : Rest(context, from, writer);
    };
    router.on_resume = [](grpc::ServerContext*, int32_t, Writer*) {
      return Refusal(grpc::StatusCode::NOT_FOUND, "SESSION_NOT_FOUND", 0);
    };
    Client client({.servers = {router.address()}});
    ExpectWhole(client.Generate(Question()));
    EXPECT_EQ(generated, 3) << hurdle.error_message();
  }
}

TEST(ClientStreamTest, AFirstTryIsRepeatedWhereTheCallWasLostAndNotWhereItWasRefused) {
  for (const bool lost : {true, false}) {
    FakeRouter router;
    int generated = 0;
    router.on_generate = [&](grpc::ServerContext* context, int32_t from, Writer* writer) {
      if (++generated > 1) return Rest(context, from, writer);
      return lost ? grpc::Status(grpc::StatusCode::INTERNAL, "Received RST_STREAM")
                  : Refusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL", 1);
    };
    Client client({.servers = {router.address()}});
    const auto answer = client.Generate(Question());
    if (lost) {
      ExpectWhole(answer);
    } else {
      EXPECT_EQ(answer.status().code(), absl::StatusCode::kResourceExhausted);
    }
  }
}

TEST(ClientStreamTest, TheRetryBudgetBounds) {
  FakeRouter router;
  router.on_generate = BreakAfter7;
  router.on_resume = [](grpc::ServerContext*, int32_t, Writer*) {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "still down");
  };
  Client client({.servers = {router.address()}, .retry_budget_ms = 0});
  EXPECT_TRUE(absl::IsUnavailable(client.Generate(Question()).status()));
}

TEST(ClientStreamTest, ARefusalKeepsItsDetails) {
  FakeRouter router;
  router.on_generate = [](grpc::ServerContext*, int32_t, Writer*) {
    google::rpc::Status rpc;
    google::rpc::ErrorInfo info;
    info.set_reason("VALUE_OUT_OF_RANGE");
    google::rpc::BadRequest bad;
    bad.add_field_violations()->set_field("sampling.temperature");
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(1);
    retry.mutable_retry_delay()->set_nanos(500'000'000);
    rpc.add_details()->PackFrom(info);
    rpc.add_details()->PackFrom(bad);
    rpc.add_details()->PackFrom(retry);
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "temperature 9",
                        rpc.SerializeAsString());
  };
  Client client({.servers = {router.address()}});
  const auto answer = client.Generate(Question());
  ASSERT_TRUE(absl::IsInvalidArgument(answer.status()));
  EXPECT_EQ(Message(answer.status()), "temperature 9");
  const auto detail = DetailOf(answer.status());
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->reason, "VALUE_OUT_OF_RANGE");
  EXPECT_EQ(detail->field, "sampling.temperature");
  EXPECT_EQ(detail->retry_after_ms, 1500);
  EXPECT_EQ(router.generated.size(), 1u) << "a verdict is not asked for twice";
}

TEST(ClientStreamTest, TheCallerMayStop) {
  FakeRouter router;
  std::mutex mutex;
  std::condition_variable changed;
  bool cancelled = false;
  router.on_generate = [&](grpc::ServerContext* context, int32_t, Writer* writer) {
    SendStarted(writer);
    SendToken(0, writer);
    while (!context->IsCancelled()) std::this_thread::yield();
    std::lock_guard lock(mutex);
    cancelled = true;
    changed.notify_all();
    return grpc::Status::CANCELLED;
  };
  Client client({.servers = {router.address()}});
  const auto answer = client.Generate(
      Question(), [](const Event& event) { return !std::holds_alternative<Tokens>(event); });
  EXPECT_TRUE(absl::IsCancelled(answer.status()));
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return cancelled; });
}

TEST(ClientStreamTest, AnIdempotencyKeyLeavesIdAndSeedToTheRouter) {
  FakeRouter router;
  Client client({.servers = {router.address()}});
  GenerateRequest request = Question();
  request.idempotency_key = "k";
  ExpectWhole(client.Generate(request));
  EXPECT_TRUE(router.generated[0].request_id().empty());
  EXPECT_FALSE(router.generated[0].sampling().has_seed());
}

}  // namespace
}  // namespace fathom::client
