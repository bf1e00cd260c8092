// The scheduler link against scheduler servers of the test: which scheduler leads, which messages
// are obeyed, and what happens when streams end.
#include "router/link/grpc_scheduler_link.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "cluster.grpc.pb.h"
#include "cluster/terms.h"

namespace fathom::router {
namespace {

namespace wire = cluster::v1;
using Stream = grpc::ServerReaderWriter<wire::RouteDown, wire::RouteUp>;

// A scheduler of the test: sends a Hello, keeps what it receives, and sends what the test wants.
class FakeScheduler final : public wire::Scheduler::Service {
 public:
  FakeScheduler(uint64_t term, bool leader) : term_(term), leader_(leader) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeScheduler() override { server_->Shutdown(std::chrono::system_clock::now()); }
  std::string address() const { return fmt::format("127.0.0.1:{}", port_); }

  grpc::Status Route(grpc::ServerContext* context, Stream* stream) override {
    wire::RouteUp up;
    if (!stream->Read(&up) || !up.has_hello())
      return {grpc::StatusCode::INVALID_ARGUMENT, "no hello"};
    stream->Write(Hello(leader_));
    {
      std::lock_guard lock(mutex_);
      context_ = context;
      stream_ = stream;
      changed_.notify_all();
    }
    while (stream->Read(&up)) {
      std::lock_guard lock(mutex_);
      if (up.has_submit()) submits_.push_back(up.submit());
      changed_.notify_all();
    }
    std::lock_guard lock(mutex_);
    context_ = nullptr;
    stream_ = nullptr;
    return grpc::Status::OK;
  }
  wire::RouteDown Hello(bool leader) const {
    wire::RouteDown down;
    down.mutable_hello()->set_role(wire::ROLE_SCHEDULER);
    down.mutable_hello()->set_protocol_min(1);
    down.mutable_hello()->set_protocol_max(1);
    wire::SchedulerHello& hello = *down.mutable_hello()->mutable_scheduler();
    hello.set_leader(leader);
    hello.set_term(term_);
    hello.set_config_digest("digest");
    hello.set_context_tokens(4096);
    return down;
  }
  void Say(const wire::RouteDown& message) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stream_ != nullptr; });
    stream_->Write(message);
  }
  wire::Submit WaitForSubmit() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !submits_.empty(); });
    wire::Submit submit = submits_.front();
    submits_.erase(submits_.begin());
    return submit;
  }
  void BreakStream() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stream_ != nullptr; });
    context_->TryCancel();
    stream_ = nullptr;
  }

 private:
  const uint64_t term_;
  const bool leader_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  std::condition_variable changed_;
  grpc::ServerContext* context_ = nullptr;
  Stream* stream_ = nullptr;
  std::vector<wire::Submit> submits_;
};

// Keeps the events of the link.
class Heard final : public SchedulerEvents {
 public:
  void OnUp(StreamId stream, const SchedulerFacts& facts, uint32_t /*protocol*/) override {
    Note([&] { ups_.push_back({stream, facts}); });
  }
  void OnFacts(StreamId, const SchedulerFacts&) override {
    Note([&] { ++facts_; });
  }
  void OnDown(StreamId stream) override {
    Note([&] { downs_.push_back(stream); });
  }
  void OnWritable(StreamId) override {}
  void OnAccepted(Accepted accepted) override {
    Note([&] { accepted_.push_back(std::move(accepted)); });
  }
  void OnRefused(const Refused& refused) override {
    Note([&] { refused_.push_back(refused.status); });
  }
  void OnFrames(StreamId, std::span<Frame> frames) override {
    Note([&] { frames_.insert(frames_.end(), frames.begin(), frames.end()); });
  }
  void OnExplained(const Explained&) override {}
  void OnStats(const ClusterStats&) override {
    Note([&] { ++stats_; });
  }

  void Wait(const std::function<bool(const Heard&)>& done) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done(*this); });
  }

  struct Up {
    StreamId stream;
    SchedulerFacts facts;
  };
  std::vector<Up> ups_;
  std::vector<StreamId> downs_;
  std::vector<Accepted> accepted_;
  std::vector<absl::Status> refused_;
  std::vector<Frame> frames_;
  int facts_ = 0;
  int stats_ = 0;

 private:
  void Note(const std::function<void()>& note) {
    std::lock_guard lock(mutex_);
    note();
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
};

// A link with a thread that ticks it.
class Linked {
 public:
  explicit Linked(std::vector<std::string> addresses)
      : link_(OptionsFor(std::move(addresses)), &clock_) {
    link_.Start(&heard_);
    ticker_ = std::thread([this] {
      while (!over_) {
        link_.Tick();
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    });
  }
  ~Linked() {
    over_ = true;
    ticker_.join();
    link_.Stop();
  }
  GrpcSchedulerLink& link() { return link_; }
  Heard& heard() { return heard_; }

 private:
  static GrpcSchedulerLinkOptions OptionsFor(std::vector<std::string> addresses) {
    GrpcSchedulerLinkOptions options;
    options.addresses = std::move(addresses);
    return options;
  }
  RealClock clock_;
  Heard heard_;
  GrpcSchedulerLink link_;
  std::atomic<bool> over_ = false;
  std::thread ticker_;
};

Submit SomeSubmit(uint64_t attempt) {
  Submit submit;
  submit.attempt = AttemptId{attempt};
  submit.key = {"default", "r"};
  submit.record.emplace();
  submit.record->key = submit.key;
  submit.record->prompt_ids = {1, 2, 3};
  submit.have = {5};
  submit.replay = true;
  return submit;
}

wire::RouteDown FramesOf(uint64_t term) {
  wire::RouteDown down;
  down.mutable_frames()->set_term(term);
  wire::Frame& frame = *down.mutable_frames()->add_frames();
  frame.set_attempt(4);
  frame.set_position(static_cast<int32_t>(term));
  frame.add_ids(9);
  return down;
}

TEST(GrpcSchedulerLink, CarriesBothWays) {
  FakeScheduler scheduler(5, true);
  Linked linked({scheduler.address()});
  Heard& heard = linked.heard();
  heard.Wait([](const Heard& h) { return h.ups_.size() == 1; });
  EXPECT_EQ(heard.ups_[0].facts.term, TermId{5});
  EXPECT_EQ(heard.ups_[0].facts.cluster.config_digest, "digest");
  const StreamId stream = heard.ups_[0].stream;

  ASSERT_TRUE(linked.link().SendSubmit(stream, SomeSubmit(4)));
  EXPECT_FALSE(linked.link().SendSubmit(StreamId{stream.value + 1}, SomeSubmit(5)));
  const wire::Submit submit = scheduler.WaitForSubmit();
  EXPECT_EQ(submit.attempt(), 4u);
  EXPECT_EQ(submit.record().prompt_ids_size(), 3);
  EXPECT_EQ(submit.have(0), 5);
  EXPECT_TRUE(submit.replay());

  wire::RouteDown refused;
  refused.mutable_refused()->set_attempt(4);
  refused.mutable_refused()->set_code(8);
  refused.mutable_refused()->set_reason("QUEUE_FULL");
  refused.mutable_refused()->set_retry_after_ms(7);
  scheduler.Say(refused);
  scheduler.Say(FramesOf(5));
  scheduler.Say(scheduler.Hello(true));
  heard.Wait([](const Heard& h) {
    return h.refused_.size() == 1 && h.frames_.size() == 1 && h.facts_ == 1;
  });
  EXPECT_EQ(heard.refused_[0].code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(heard.refused_[0])->retry_after_ms, 7);
  EXPECT_EQ(heard.frames_[0].ids, std::vector<TokenId>{9});
}

TEST(GrpcSchedulerLink, DialsAgainUnderANewName) {
  FakeScheduler scheduler(5, true);
  Linked linked({scheduler.address()});
  Heard& heard = linked.heard();
  heard.Wait([](const Heard& h) { return h.ups_.size() == 1; });
  scheduler.BreakStream();
  heard.Wait([](const Heard& h) { return h.ups_.size() == 2; });
  EXPECT_EQ(heard.downs_, std::vector<StreamId>{heard.ups_[0].stream});
  EXPECT_GT(heard.ups_[1].stream, heard.ups_[0].stream);
  EXPECT_FALSE(linked.link().SendSubmit(heard.ups_[0].stream, SomeSubmit(1)));
  linked.link().Reset(heard.ups_[1].stream);
  heard.Wait([](const Heard& h) { return h.ups_.size() == 3; });
}

TEST(GrpcSchedulerLink, TheHighestTermIsObeyed) {
  FakeScheduler standby(6, false);
  FakeScheduler leader(5, true);
  Linked linked({standby.address(), leader.address()});
  Heard& heard = linked.heard();
  heard.Wait([](const Heard& h) { return h.ups_.size() == 1; });
  EXPECT_EQ(heard.ups_[0].facts.term, TermId{5});
  standby.Say(standby.Hello(true));  // It takes over without an answer of the old one.
  heard.Wait([](const Heard& h) { return h.ups_.size() == 2; });
  EXPECT_EQ(heard.ups_[1].facts.term, TermId{6});
  leader.Say(FramesOf(5));
  leader.Say(leader.Hello(true));
  standby.Say(FramesOf(6));
  heard.Wait([](const Heard& h) { return !h.frames_.empty(); });
  EXPECT_EQ(heard.frames_[0].position, 6);
  EXPECT_EQ(heard.ups_.size(), 2u);
  standby.Say(standby.Hello(false));  // It steps down.
  heard.Wait([](const Heard& h) { return h.downs_.size() == 1; });
}

TEST(GrpcSchedulerLink, ATermFarBeyondTheHighestOneIsNotObeyed) {
  FakeScheduler leader(5, true);
  Linked linked({leader.address()});
  Heard& heard = linked.heard();
  heard.Wait([](const Heard& h) { return h.ups_.size() == 1; });
  wire::RouteDown beat;
  beat.mutable_heartbeat()->set_term(5 + kTermLeadMax + 1);
  leader.Say(beat);  // If the link believed it, all messages of the leader would be ignored.
  heard.Wait([](const Heard& h) { return h.ups_.size() == 2; });  // The stream starts again.
  EXPECT_EQ(heard.ups_[1].facts.term, TermId{5});
  leader.Say(FramesOf(5));
  heard.Wait([](const Heard& h) { return !h.frames_.empty(); });
}

}  // namespace
}  // namespace fathom::router
