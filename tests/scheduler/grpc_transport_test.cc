// Real streams in one process: order, refusals, limits, the health service and reflection.
#include "scheduler/transport/grpc_transport.h"

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "cluster.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace fathom::scheduler {
namespace {

namespace pb = cluster::v1;
using grpc::health::v1::Health;

class GrpcTransportTest : public testing::Test {
 protected:
  void Listen(TransportLimits limits = {}) {
    auto listener = Listener::Bind("127.0.0.1", 0, "--port");
    ASSERT_TRUE(listener.ok()) << ToString(listener.status());
    auto transport = GrpcTransport::Serve(*std::move(listener), limits, &clock_);
    ASSERT_TRUE(transport.ok()) << ToString(transport.status());
    transport_ = *std::move(transport);
    grpc::ChannelArguments args;
    args.SetMaxReceiveMessageSize(64 << 20);
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(transport_->port()),
                                         grpc::InsecureChannelCredentials(), args);
    stub_ = pb::Scheduler::NewStub(channel_);
  }

  // Waits for the next event; fails if none comes.
  TransportEvent Next() {
    auto event = transport_->Next(clock_.Now() + 10'000'000);
    EXPECT_TRUE(event.has_value()) << "no event within 10 s";
    return event ? *std::move(event) : TransportEvent{};
  }
  template <class T>
  T NextIs() {
    TransportEvent event = Next();
    last_peer_ = event.peer;
    EXPECT_TRUE(std::holds_alternative<T>(event.message)) << "index " << event.message.index();
    return std::holds_alternative<T>(event.message) ? std::get<T>(event.message) : T{};
  }
  // Polls until `done`, because a blocking call of a client needs the transport to run.
  template <class Call>
  void PollWhile(Call call) {
    std::atomic<bool> done = false;
    std::thread client([&] {
      call();
      done = true;
    });
    while (!done) transport_->Next(clock_.Now() + 1'000);
    client.join();
  }
  void ExpectNoStreamsLeft() {
    const TimeUs end = clock_.Now() + 10'000'000;
    while (transport_->Stats().streams > 0 && clock_.Now() < end)
      transport_->Next(clock_.Now() + 1'000);
    EXPECT_EQ(transport_->Stats().streams, 0);
  }

  RealClock clock_;
  std::unique_ptr<GrpcTransport> transport_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<pb::Scheduler::Stub> stub_;
  PeerId last_peer_;
};

TEST_F(GrpcTransportTest, CarriesMessagesBothWaysInOrder) {
  Listen();
  grpc::ClientContext context;
  auto stream = stub_->Route(&context);
  pb::RouteUp up;
  up.mutable_hello()->set_process_id("router-1");
  up.mutable_hello()->set_role(pb::ROLE_ROUTER);
  up.mutable_hello()->set_term_seen(3);
  ASSERT_TRUE(stream->Write(up));
  NextIs<PeerUp>();
  const Hello hello = NextIs<Hello>();
  EXPECT_EQ(hello.process_id, "router-1");
  EXPECT_EQ(hello.role, Role::kRouter);
  EXPECT_EQ(hello.term_seen, TermId{3});
  const PeerId peer = last_peer_;

  for (uint64_t i = 0; i < 100; ++i) {
    up.mutable_submit()->set_attempt(i);
    up.mutable_submit()->mutable_key()->set_request_id("r");
    ASSERT_TRUE(stream->Write(up));
    Frames batch{TermId{1}, {}};
    batch.frames.push_back({AttemptId{i}, 0, static_cast<int32_t>(i), {1, 2, 3}});
    transport_->Send(peer, batch);
  }
  for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(NextIs<Submit>().attempt, AttemptId{i});
  PollWhile([&] {
    pb::RouteDown down;
    for (uint64_t i = 0; i < 100; ++i) {
      ASSERT_TRUE(stream->Read(&down));
      ASSERT_EQ(down.frames().frames_size(), 1);
      EXPECT_EQ(down.frames().frames(0).attempt(), i);
      EXPECT_EQ(down.frames().frames(0).ids_size(), 3);
    }
  });
  EXPECT_TRUE(transport_->Flushed());
  stream->WritesDone();
  EXPECT_EQ(NextIs<PeerDown>().reason, "the stream ended");
  PollWhile([&] { EXPECT_TRUE(stream->Finish().ok()); });
  ExpectNoStreamsLeft();
}

TEST_F(GrpcTransportTest, AnUnreadableSubmitHarmsOnlyItself) {
  Listen();
  grpc::ClientContext context;
  auto stream = stub_->Route(&context);
  pb::RouteUp up;
  up.mutable_submit()->set_attempt(7);
  ASSERT_TRUE(stream->Write(up));
  NextIs<PeerUp>();
  const SubmitUnreadable bad = NextIs<SubmitUnreadable>();
  EXPECT_EQ(bad.attempt, AttemptId{7});
  EXPECT_NE(Message(bad.status).find("Submit.subject"), std::string_view::npos);
  up.mutable_heartbeat()->set_term(1);
  ASSERT_TRUE(stream->Write(up));
  NextIs<Heartbeat>();
  context.TryCancel();
  NextIs<PeerDown>();
  ExpectNoStreamsLeft();
}

TEST_F(GrpcTransportTest, RefusesAMessageItDoesNotKnow) {
  Listen();
  grpc::ClientContext context;
  auto stream = stub_->Control(&context);
  ASSERT_TRUE(stream->Write(pb::ControlUp()));
  NextIs<PeerUp>();
  EXPECT_NE(NextIs<PeerDown>().reason.find("Control message"), std::string::npos);
  PollWhile([&] {
    pb::ControlDown down;
    EXPECT_FALSE(stream->Read(&down));
    const grpc::Status status = stream->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  });
  EXPECT_EQ(transport_->Stats().unreadable_messages_total, 1u);
  ExpectNoStreamsLeft();
}

TEST_F(GrpcTransportTest, CloseComesAfterWhatWasSent) {
  Listen();
  grpc::ClientContext context;
  auto stream = stub_->Steps(&context);
  pb::StepsUp up;
  up.mutable_hello()->set_rank(1);
  ASSERT_TRUE(stream->Write(up));
  NextIs<PeerUp>();
  EXPECT_EQ(NextIs<StepsHello>().rank, 1);
  for (uint64_t i = 0; i < 10; ++i)
    transport_->Send(last_peer_, StepPlan{TermId{1}, EpochId{1}, StepId{i}});
  transport_->Close(last_peer_, Aborted("epoch 1 ended"));
  transport_->Send(last_peer_, StepPlan{});  // Too late: skipped.
  PollWhile([&] {
    pb::StepsDown down;
    for (uint64_t i = 0; i < 10; ++i) {
      ASSERT_TRUE(stream->Read(&down));
      EXPECT_EQ(down.plan().step(), i);
    }
    EXPECT_FALSE(stream->Read(&down));
    const grpc::Status status = stream->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
    EXPECT_EQ(status.error_message(), "epoch 1 ended");
  });
  ExpectNoStreamsLeft();
}

TEST_F(GrpcTransportTest, APeerThatDoesNotReadIsClosedAndCounted) {
  Listen({.outbox_bytes_max = 1 << 20});
  grpc::ClientContext context;
  auto stream = stub_->Route(&context);
  pb::RouteUp up;
  up.mutable_heartbeat();
  ASSERT_TRUE(stream->Write(up));
  NextIs<PeerUp>();
  NextIs<Heartbeat>();
  const PeerId peer = last_peer_;
  Frames batch{TermId{1}, {}};
  batch.frames.push_back({.ids = std::vector<TokenId>(100'000, 1 << 20)});
  std::optional<TransportEvent> event;
  // gRPC's look-ahead and the sockets hold some messages.
  for (int i = 0; i < 1'000 && !event; ++i) {
    transport_->Send(peer, batch);
    event = transport_->Next(clock_.Now());
  }
  ASSERT_TRUE(event.has_value());
  ASSERT_TRUE(std::holds_alternative<PeerDown>(event->message));
  EXPECT_EQ(transport_->Stats().outbox_overflows_total, 1u);
  ExpectNoStreamsLeft();
}

TEST_F(GrpcTransportTest, HealthAnswersAndWatchersHearTheEnd) {
  Listen();
  auto health = Health::NewStub(channel_);
  grpc::ClientContext watch_context;
  grpc::health::v1::HealthCheckRequest request;
  auto watch = health->Watch(&watch_context, request);
  grpc::health::v1::HealthCheckResponse response;
  PollWhile([&] {
    ASSERT_TRUE(watch->Read(&response));
    EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
    for (const char* service : {"", "fathom.cluster.v1.Scheduler"}) {
      grpc::ClientContext context;
      request.set_service(service);
      ASSERT_TRUE(health->Check(&context, request, &response).ok());
      EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
    }
    grpc::ClientContext context;
    request.set_service("other");
    EXPECT_EQ(health->Check(&context, request, &response).error_code(),
              grpc::StatusCode::NOT_FOUND);
  });
  transport_->StopServing();
  PollWhile([&] {
    ASSERT_TRUE(watch->Read(&response));
    EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
    watch_context.TryCancel();
    EXPECT_FALSE(watch->Read(&response));
  });
}

TEST_F(GrpcTransportTest, EndsWithStreamsOpen) {
  Listen();
  grpc::ClientContext context;
  auto stream = stub_->Route(&context);
  pb::RouteUp up;
  up.mutable_heartbeat();
  ASSERT_TRUE(stream->Write(up));
  NextIs<PeerUp>();
  transport_.reset();
  pb::RouteDown down;
  EXPECT_FALSE(stream->Read(&down));
}

}  // namespace
}  // namespace fathom::scheduler
