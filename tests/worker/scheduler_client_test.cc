// Control and Steps over real gRPC against a scheduler of the test: what the worker sends, which
// scheduler it obeys, and that it reconnects.
#include "worker/cluster/scheduler_client.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "cluster.grpc.pb.h"
#include "cluster/terms.h"

namespace fathom::worker {
namespace {

namespace wire = cluster::v1;

// One Control and one Steps stream at a time. The test waits for messages and sends its own.
class FakeScheduler final : public wire::Scheduler::Service {
 public:
  using ControlStream = grpc::ServerReaderWriter<wire::ControlDown, wire::ControlUp>;
  using StepsStream = grpc::ServerReaderWriter<wire::StepsDown, wire::StepsUp>;

  FakeScheduler() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeScheduler() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  grpc::Status Control(grpc::ServerContext* context, ControlStream* stream) override {
    {
      std::lock_guard lock(mutex_);
      control_ = stream;
      control_context_ = context;
    }
    changed_.notify_all();
    wire::ControlUp up;
    while (stream->Read(&up)) {
      std::lock_guard lock(mutex_);
      ups_.push_back(up);
      changed_.notify_all();
    }
    std::lock_guard lock(mutex_);
    if (control_ == stream) control_ = nullptr;
    return grpc::Status::OK;
  }

  grpc::Status Steps(grpc::ServerContext*, StepsStream* stream) override {
    wire::StepsUp up;
    std::unique_lock lock(mutex_);
    steps_ = stream;
    changed_.notify_all();
    lock.unlock();
    while (stream->Read(&up)) {
      lock.lock();
      steps_ups_.push_back(up);
      lock.unlock();
      changed_.notify_all();
    }
    lock.lock();
    steps_ = nullptr;
    ++steps_ended_;
    changed_.notify_all();
    return grpc::Status::OK;
  }

  // Waits for the first message that `wanted` accepts; the messages before it are dropped.
  wire::ControlUp WaitUp(const std::function<bool(const wire::ControlUp&)>& wanted) {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return !ups_.empty(); });
      wire::ControlUp up = std::move(ups_.front());
      ups_.pop_front();
      if (wanted(up)) return up;
    }
  }
  wire::ControlUp WaitHello() {
    return WaitUp([](const wire::ControlUp& up) { return up.has_hello(); });
  }
  wire::StepsUp WaitSteps() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !steps_ups_.empty(); });
    wire::StepsUp up = std::move(steps_ups_.front());
    steps_ups_.pop_front();
    return up;
  }
  void WaitStepsEnded(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return steps_ended_ >= count; });
  }
  void Send(const wire::ControlDown& down) {
    std::lock_guard lock(mutex_);
    ASSERT_NE(control_, nullptr);
    control_->Write(down);
  }
  void SendPlan(const wire::StepPlan& plan) {
    std::lock_guard lock(mutex_);
    ASSERT_NE(steps_, nullptr);
    wire::StepsDown down;
    *down.mutable_plan() = plan;
    steps_->Write(down);
  }
  void BreakControl() {
    std::lock_guard lock(mutex_);
    control_context_->TryCancel();
  }

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  ControlStream* control_ = nullptr;
  grpc::ServerContext* control_context_ = nullptr;
  StepsStream* steps_ = nullptr;
  std::deque<wire::ControlUp> ups_;
  std::deque<wire::StepsUp> steps_ups_;
  int steps_ended_ = 0;
};

wire::ControlDown HelloDown(uint64_t term, uint32_t protocol_max = 1) {
  wire::ControlDown down;
  down.mutable_hello()->set_role(wire::ROLE_SCHEDULER);
  down.mutable_hello()->set_protocol_min(1);
  down.mutable_hello()->set_protocol_max(protocol_max);
  down.mutable_hello()->mutable_scheduler()->set_leader(true);
  down.mutable_hello()->mutable_scheduler()->set_term(term);
  return down;
}

wire::ControlDown GroupDown(uint64_t term, uint64_t epoch) {
  wire::ControlDown down;
  wire::Group* group = down.mutable_group();
  group->set_term(term);
  group->set_epoch(epoch);
  group->set_tp(2);
  group->set_pp(1);
  group->set_rank(1);
  group->set_blocks(17);
  wire::WorkerLimits* limits = group->mutable_limits();
  limits->set_context_tokens(64);
  limits->set_block_tokens(16);
  limits->set_pool_blocks(17);
  limits->set_slots(3);
  limits->set_step_tokens(32);
  limits->set_vocab(100);
  group->add_peers()->set_host("here");
  group->add_peers()->set_host("here");
  return down;
}

class SchedulerClientTest : public testing::Test {
 protected:
  static Hello MakeHello() {
    Hello hello;
    hello.process_id = "me";
    hello.role = Role::kWorker;
    WorkerFacts& facts = hello.worker.emplace();
    facts.model = "tiny";
    facts.fingerprint = "print";
    facts.device_kind = "cuda-sm90";
    facts.dtype = "bfloat16";
    facts.limits = {100, 16, 20, 4, 32, 50};
    facts.tp = 2;
    facts.preferred_rank = 1;
    return hello;
  }

  RealClock clock_;
  FakeScheduler scheduler_;
  Membership membership_;
  Progress progress_;
  std::atomic<bool> draining_{false};
  std::atomic<int> registered_{0};
  SchedulerClient client_{{scheduler_.address()},
                          {},
                          MakeHello(),
                          &membership_,
                          &progress_,
                          &draining_,
                          &clock_,
                          [this](int schedulers) { registered_ = schedulers; }};
};

// A worker that leaves does not wait for a scheduler that cannot move its sequences.
TEST_F(SchedulerClientTest, KnowsWhetherTheLeaderDrains) {
  scheduler_.WaitHello();
  scheduler_.Send(HelloDown(3, kProtocol2 - 1));
  while (client_.LeaderDrains()) std::this_thread::yield();
  scheduler_.BreakControl();
  scheduler_.WaitHello();
  scheduler_.Send(HelloDown(3, kProtocol2));
  while (!client_.LeaderDrains()) std::this_thread::yield();
}

TEST_F(SchedulerClientTest, SaysWhatItIsAndBeatsWithItsProgress) {
  const wire::Hello hello = scheduler_.WaitHello().hello();
  EXPECT_EQ(hello.role(), wire::ROLE_WORKER);
  EXPECT_EQ(hello.process_id(), "me");
  EXPECT_EQ(hello.worker().fingerprint(), "print");
  EXPECT_EQ(hello.worker().device_kind(), "cuda-sm90");
  EXPECT_EQ(hello.worker().dtype(), "bfloat16");
  EXPECT_EQ(hello.worker().tp(), 2);
  EXPECT_EQ(hello.worker().preferred_rank(), 1);
  EXPECT_EQ(hello.worker().limits().pool_blocks(), 20);
  EXPECT_EQ(hello.worker().limits().slots(), 4);
  scheduler_.Send(HelloDown(6));
  const auto hears_leader = [](const wire::ControlUp& up) { return up.heartbeat().hears_leader(); };
  EXPECT_EQ(scheduler_.WaitUp(hears_leader).heartbeat().term(), 6u);
  EXPECT_EQ(registered_, 1);
  progress_.phase = Phase::kStepping;
  progress_.op = 3;
  progress_.BeginStep(StepId{9}, Activity::kPreparing);
  progress_.Enter(Activity::kMlp, 4);
  const auto stepping = [](const wire::ControlUp& up) { return up.heartbeat().step() == 9; };
  const wire::Heartbeat beat = scheduler_.WaitUp(stepping).heartbeat();
  EXPECT_EQ(beat.phase(), wire::PHASE_STEPPING);
  const auto in_layer = [](const wire::ControlUp& up) { return up.heartbeat().layer() == 5; };
  EXPECT_EQ(scheduler_.WaitUp(in_layer).heartbeat().activity(), wire::ACTIVITY_MLP);
  // What the device tells has precedence, as long as it tells.
  struct Probe : DeviceProbe {
    DeviceWork Read() const override { return {StepId{8}, {Activity::kAttention, 6, 2}, 77}; }
  };
  const Probe probe;
  progress_.SetProbe(&probe);
  const auto from_device = [](const wire::ControlUp& up) { return up.heartbeat().layer() == 7; };
  const wire::Heartbeat device = scheduler_.WaitUp(from_device).heartbeat();
  EXPECT_EQ(device.step(), 8u);
  EXPECT_EQ(device.collective(), 77u);
  EXPECT_EQ(device.step_collectives(), 2u);
  progress_.SetProbe(nullptr);
  scheduler_.WaitUp(in_layer);
  draining_ = true;
  scheduler_.WaitUp(
      [](const wire::ControlUp& up) { return up.heartbeat().phase() == wire::PHASE_DRAINING; });
}

TEST_F(SchedulerClientTest, AnEpochFromSeatToAbort) {
  scheduler_.WaitHello();
  scheduler_.Send(HelloDown(2));
  scheduler_.Send(GroupDown(2, 7));
  const std::shared_ptr<Epoch> epoch = membership_.Next();
  EXPECT_EQ(epoch->seat().rank, 1);
  EXPECT_EQ(epoch->seat().limits.pool_blocks, 17);
  EXPECT_EQ(epoch->seat().peers.size(), 2u);
  wire::ControlDown exchange;
  exchange.mutable_exchange()->set_epoch(7);
  exchange.mutable_exchange()->set_bytes("/name");
  scheduler_.Send(exchange);
  EXPECT_EQ(epoch->WaitExchange(0, 0, std::chrono::seconds(60)).value(), "/name");
  client_.SendReady(*epoch);
  EXPECT_EQ(
      scheduler_.WaitUp([](const wire::ControlUp& up) { return up.has_ready(); }).ready().epoch(),
      7u);

  const std::unique_ptr<StepChannel> steps = client_.DialSteps(*epoch);
  const wire::StepsHello hello = scheduler_.WaitSteps().hello();
  EXPECT_EQ(hello.term(), 2u);
  EXPECT_EQ(hello.epoch(), 7u);
  EXPECT_EQ(hello.rank(), 1);
  EXPECT_EQ(hello.process_id(), "me");
  wire::StepPlan plan;
  plan.set_term(2);
  plan.set_epoch(7);
  plan.add_releases(3);
  scheduler_.SendPlan(plan);
  const auto read = steps->Read();
  ASSERT_TRUE(read.ok()) << ToString(read.status());
  EXPECT_EQ(read->releases, std::vector<SlotId>{{3}});
  ASSERT_TRUE(steps->Write({{2}, {7}, {0}, 1, {}, {}, 4}).ok());
  EXPECT_EQ(scheduler_.WaitSteps().result().collectives(), 4u);

  // A waiting Read returns when the scheduler ends the epoch.
  std::thread engine([&] { EXPECT_FALSE(steps->Read().ok()); });
  wire::ControlDown abort;
  abort.mutable_abort()->set_term(2);
  abort.mutable_abort()->set_epoch(7);
  abort.mutable_abort()->set_reason("because");
  scheduler_.Send(abort);
  engine.join();
  EXPECT_TRUE(epoch->aborted());
  EXPECT_FALSE(steps->Write({}).ok());
  scheduler_.WaitStepsEnded(1);
}

TEST_F(SchedulerClientTest, AWordOfAnOlderTermIsAnsweredWithTheNewer) {
  scheduler_.WaitHello();
  scheduler_.Send(HelloDown(5));
  scheduler_.Send(GroupDown(4, 1));
  scheduler_.WaitUp([](const wire::ControlUp& up) {
    return up.heartbeat().term() == 5 && !up.heartbeat().hears_leader();
  });
  scheduler_.Send(GroupDown(5, 2));
  EXPECT_EQ(membership_.Next()->seat().epoch, EpochId{2});
}

TEST_F(SchedulerClientTest, ATermFarBeyondTheHighestOneIsNotObeyed) {
  scheduler_.WaitHello();
  scheduler_.Send(HelloDown(5));
  scheduler_.Send(HelloDown(5 + kTermLeadMax + 1));
  scheduler_.Send(GroupDown(kTermMax - 1, 1));
  scheduler_.Send(HelloDown(6));
  scheduler_.Send(GroupDown(6, 2));
  EXPECT_EQ(membership_.Next()->seat().epoch, EpochId{2});
  EXPECT_EQ(membership_.term(), TermId{6});
}

TEST_F(SchedulerClientTest, ABrokenStreamEndsTheEpochAndComesBackWithTheTerm) {
  scheduler_.WaitHello();
  scheduler_.Send(HelloDown(3));
  scheduler_.Send(GroupDown(3, 1));
  const std::shared_ptr<Epoch> epoch = membership_.Next();
  scheduler_.BreakControl();
  EXPECT_EQ(scheduler_.WaitHello().hello().term_seen(), 3u);
  EXPECT_TRUE(epoch->aborted());
  scheduler_.Send(HelloDown(4));
  scheduler_.Send(GroupDown(4, 1));
  EXPECT_EQ(membership_.Next()->seat().term, TermId{4});
}

TEST_F(SchedulerClientTest, ASeatInAPipelineIsTaken) {
  scheduler_.WaitHello();
  scheduler_.Send(HelloDown(1));
  wire::ControlDown group = GroupDown(1, 1);
  group.mutable_group()->set_pp(2);
  scheduler_.Send(group);
  EXPECT_EQ(membership_.Next()->seat().shape(), (GroupShape{.tp = 2, .pp = 2}));
}

}  // namespace
}  // namespace fathom::worker
