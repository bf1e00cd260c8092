// The driver between a fake transport and the real pure parts: with manual time for exact sequences
// of events, and with threads for TSan.
#include "scheduler/driver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>

#include "tests/scheduler/driver_world.h"

namespace fathom::scheduler {
namespace {

// A term store that cannot be reached.
class NoTermStore final : public TermStore {
 public:
  absl::StatusOr<TermId> Take(TermId) override { return Unavailable("the store is away"); }
};

class DriverTest : public testing::Test {
 protected:
  // Handles everything that can happen without time passing.
  void Settle() {
    for (bool busy = true; busy;) {
      busy = false;
      while (!transport_.idle()) {
        running_ = driver_.RunOnce();
        busy = true;
      }
      for (FakeWorker* worker : workers_)
        busy = TakeAll([&] { return worker->TakeControl(); }) || busy;
      for (FakeWorker* worker : workers_) busy = (stepping_ && worker->TakePlan()) || busy;
      for (FakeRouter* router : routers_) busy = TakeAll([&] { return router->Take(); }) || busy;
    }
  }
  static bool TakeAll(const std::function<bool()>& take) {
    bool any = false;
    while (take()) any = true;
    return any;
  }
  // Lets time pass; peers keep sending heartbeats.
  void Pass(int64_t us) {
    for (const TimeUs end = clock_.Now() + us; clock_.Now() < end;) {
      for (FakeWorker* worker : workers_)
        transport_.Say(worker->control(), Heartbeat{.phase = Phase::kIdle});
      for (FakeRouter* router : routers_) transport_.Say(router->peer(), Heartbeat{});
      Settle();
      running_ = driver_.RunOnce();  // No event waits, so the clock moves to the next deadline.
    }
    Settle();
  }
  FakeWorker* AddWorker(const std::string& process, int32_t tp, int32_t rank, int32_t pp = 1) {
    owned_workers_.push_back(std::make_unique<FakeWorker>(&transport_, process, tp, rank, pp));
    workers_.push_back(owned_workers_.back().get());
    return workers_.back();
  }
  void Remove(FakeWorker* worker) { std::erase(workers_, worker); }
  bool Shows(const std::string& line) {
    return ("\n" + metrics_.Text()).find("\n" + line + "\n") != std::string::npos;
  }

  ManualClock clock_;
  FakeTransport transport_{&clock_};
  std::unique_ptr<TermStore> terms_ = MakeMemoryTermStore();
  Metrics metrics_{"scheduler"};
  DriverMetrics driver_metrics_{&metrics_};
  const DriverOptions options_{.process_id = "scheduler", .build = "test"};
  Driver driver_{options_,     *terms_->Take(TermId{0}), &clock_, &transport_,
                 terms_.get(), &driver_metrics_};
  std::vector<std::unique_ptr<FakeWorker>> owned_workers_;
  std::vector<FakeWorker*> workers_;
  std::vector<FakeRouter*> routers_;
  bool stepping_ = true;  // Workers execute plans.
  bool running_ = true;
};

TEST_F(DriverTest, ARequestStreamsToItsEnd) {
  FakeRouter router(&transport_);
  routers_ = {&router};
  Settle();
  ASSERT_EQ(router.hellos.size(), 1u);
  EXPECT_EQ(router.hellos[0].term, TermId{1});
  EXPECT_EQ(router.hellos[0].cluster, ClusterFacts{});

  AddWorker("a", 2, 0);
  AddWorker("b", 2, 1);
  Settle();
  EXPECT_EQ(router.hellos.back().cluster.groups, 1);
  EXPECT_EQ(router.hellos.back().cluster.pool_blocks, 32);
  EXPECT_EQ(router.hellos.back().cluster.config_digest, "config");

  const Record record = MakeRecord("r", 21, 12);
  router.Submit(record, 7);
  Settle();
  EXPECT_TRUE(router.ended(7));
  EXPECT_EQ(router.ids(7), Expected(record));
  EXPECT_TRUE(Shows("fathom_scheduler_blocks_used 0"));
  EXPECT_TRUE(Shows("fathom_scheduler_generation_tokens_total 12"));
  EXPECT_TRUE(Shows("fathom_scheduler_requests_finished_total 1"));
  // Before any heartbeat, because no request runs any more.
  EXPECT_EQ(router.last_stats.generation_tokens_total, 12u);
  EXPECT_EQ(router.last_stats.requests_running, 0);
  EXPECT_EQ(router.last_stats.blocks_used, 0);
  EXPECT_EQ(router.last_stats.blocks_total, 32);
  Pass(options_.heartbeat_us * 2);
  EXPECT_EQ(router.last_stats.generation_tokens_total, 12u);
  EXPECT_EQ(router.last_stats.prompt_tokens_total, 21u);
  EXPECT_EQ(router.last_stats.groups, 1);
}

// Four ranks in two stages; a killed rank of the first stage disturbs no token.
TEST_F(DriverTest, APipelineAnswersFromItsLastStage) {
  FakeRouter router(&transport_);
  routers_ = {&router};
  for (int32_t rank = 0; rank < 4; ++rank) AddWorker(fmt::format("w{}", rank), 2, rank, 2);
  Settle();
  EXPECT_EQ(router.hellos.back().cluster.groups, 1);
  std::vector<Record> records;
  for (int32_t i = 0; i < 6; ++i) {
    records.push_back(MakeRecord(fmt::format("r{}", i), 5 + 7 * i, 20));
  }
  stepping_ = false;
  for (size_t i = 0; i < records.size(); ++i) router.Submit(records[i], i + 1);
  Settle();
  for (int step = 0; step < 6; ++step) {
    for (FakeWorker* worker : workers_) worker->TakePlan();
    Settle();
  }
  workers_[1]->Die();
  Remove(workers_[1]);
  stepping_ = true;
  Settle();
  EXPECT_FALSE(router.ended(1));
  AddWorker("w4", 2, 1, 2);
  Pass(1'000'000);
  for (size_t i = 0; i < records.size(); ++i) {
    EXPECT_TRUE(router.ended(i + 1));
    EXPECT_EQ(router.ids(i + 1), Expected(records[i]));
  }
}

TEST_F(DriverTest, APlanLeavesBeforeTheFramesOfTheSameResult) {
  FakeRouter router(&transport_);
  routers_ = {&router};
  AddWorker("a", 1, 0);
  router.Submit(MakeRecord("r", 5, 30), 1);
  Settle();
  const std::vector<size_t> sent = transport_.sent();
  const size_t plan = DownMessage(StepPlan{}).index(), frames = DownMessage(Frames{}).index();
  const auto first = std::find(sent.begin(), sent.end(), frames);
  // With two plans in flight, two were sent before the first result, and each result brings the
  // next one.
  EXPECT_EQ(std::count(sent.begin(), first, plan), 3);
}

TEST_F(DriverTest, ASuspendFreesTheBlocksWithinAStep) {
  FakeRouter router(&transport_);
  routers_ = {&router};
  FakeWorker* worker = AddWorker("a", 1, 0);
  Settle();
  stepping_ = false;
  const Record record = MakeRecord("r", 5, 100);
  router.Submit(record, 1);
  Settle();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(worker->TakePlan());
    Settle();
  }
  transport_.Say(router.peer(), Suspend{AttemptId{1}, record.key});
  stepping_ = true;
  Settle();
  EXPECT_FALSE(router.ended(1));
  EXPECT_TRUE(Shows("fathom_scheduler_blocks_used 0")) << metrics_.Text();
  EXPECT_TRUE(Shows("fathom_scheduler_sessions 1"));
}

TEST_F(DriverTest, AKilledWorkerDisturbsNoToken) {
  FakeRouter router(&transport_);
  routers_ = {&router};
  AddWorker("a", 2, 0);
  FakeWorker* second = AddWorker("b", 2, 1);
  Settle();
  stepping_ = false;
  const Record record = MakeRecord("r", 9, 40);
  router.Submit(record, 1);
  Settle();
  for (int i = 0; i < 7; ++i) {
    for (FakeWorker* worker : workers_) ASSERT_TRUE(worker->TakePlan());
    Settle();
  }
  EXPECT_GT(router.ids(1).size(), 0u);
  EXPECT_LT(router.ids(1).size(), 40u);
  const EpochId epoch = second->seat()->epoch;
  second->Die();
  Remove(second);
  Settle();
  EXPECT_EQ(router.hellos.back().cluster.groups, 0);
  EXPECT_TRUE(Shows("fathom_scheduler_groups 0"));
  second = AddWorker("c", 2, 1);
  stepping_ = true;
  Settle();
  EXPECT_GT(second->seat()->epoch, epoch);
  EXPECT_TRUE(router.ended(1));
  EXPECT_EQ(router.ids(1), Expected(record));
  EXPECT_TRUE(Shows("fathom_scheduler_groups_lost_total 1"));
}

TEST_F(DriverTest, ALostRoutersSessionsGoOnForAWhileAndAnotherOneTakesThem) {
  FakeRouter router(&transport_), other(&transport_, "other");
  routers_ = {&router, &other};
  AddWorker("a", 1, 0);
  const Record record = MakeRecord("r", 9, 40);
  router.Submit(record, 1);
  Settle();
  transport_.Break(router.peer());
  routers_ = {&other};
  other.Submit(record, 1);
  Settle();
  EXPECT_EQ(other.ids(1), Expected(record));
}

TEST_F(DriverTest, RefusesByNameWhatMayNotComeFirst) {
  Hello wrong_role = RouterHello("r");
  wrong_role.role = Role::kWorker;
  Hello newer = RouterHello("r");
  newer.protocol_min = newer.protocol_max = kProtocolMax + 1;
  const std::tuple<StreamKind, UpMessage, const char*> cases[] = {
      {StreamKind::kRoute, Heartbeat{}, "first message on Route must be Hello"},
      {StreamKind::kControl, GroupReady{}, "first message on Control must be Hello"},
      {StreamKind::kSteps, StepResult{}, "first message on Steps must be Hello"},
      {StreamKind::kRoute, wrong_role, "Hello.role"},
      {StreamKind::kControl, RouterHello("r"), "Hello.role"},
      {StreamKind::kRoute, RouterHello(""), "Hello.process_id"},
      {StreamKind::kRoute, newer, "Hello.protocol"},
      {StreamKind::kRoute, RouterHello("r", ~uint64_t{0}), "term"},
      {StreamKind::kSteps, StepsHello{TermId{1}, EpochId{1}, 0, "x"}, "StepsHello"},
  };
  for (const auto& [kind, message, why] : cases) {
    const PeerId peer = transport_.Open(kind);
    transport_.Say(peer, message);
    Settle();
    ASSERT_TRUE(transport_.closed(peer).has_value()) << why;
    EXPECT_NE(Message(*transport_.closed(peer)).find(why), std::string_view::npos)
        << Message(*transport_.closed(peer));
  }
  FakeRouter router(&transport_);
  transport_.Say(router.peer(), RouterHello("router"));
  Settle();
  EXPECT_NE(Message(transport_.closed(router.peer()).value()).find("Hello: not expected"),
            std::string_view::npos);
  EXPECT_TRUE(running_);
}

TEST_F(DriverTest, AnUnreadableSubmitIsRefusedAndTheStreamGoesOn) {
  FakeRouter router(&transport_);
  routers_ = {&router};
  transport_.Say(router.peer(), SubmitUnreadable{AttemptId{3}, Invalid("Submit.subject: missing")});
  Settle();
  ASSERT_EQ(router.refusals.size(), 1u);
  EXPECT_EQ(router.refusals[0].attempt, AttemptId{3});
  EXPECT_FALSE(transport_.closed(router.peer()).has_value());
}

TEST_F(DriverTest, SilentPeersAreClosed) {
  const PeerId mute = transport_.Open(StreamKind::kRoute);
  FakeRouter router(&transport_), silent(&transport_, "silent");
  routers_ = {&router};
  Settle();
  Pass(options_.groups.heartbeat_silence_us + 500'000);
  EXPECT_TRUE(transport_.closed(silent.peer()).has_value());
  EXPECT_FALSE(transport_.closed(router.peer()).has_value());
  EXPECT_FALSE(transport_.closed(mute).has_value());
  Pass(options_.hello_us);
  EXPECT_TRUE(transport_.closed(mute).has_value());
}

TEST_F(DriverTest, AHigherTermSeenAnywhereMakesAHigherOne) {
  FakeRouter router(&transport_);
  routers_ = {&router};
  FakeWorker* worker = AddWorker("a", 1, 0);
  Settle();
  stepping_ = false;
  const Record record = MakeRecord("r", 9, 40);
  router.Submit(record, 1);
  Settle();
  ASSERT_TRUE(worker->TakePlan());
  Settle();
  transport_.Say(router.peer(), Heartbeat{.term = TermId{9}});
  stepping_ = true;
  Settle();
  EXPECT_EQ(router.hellos.back().term, TermId{10});
  EXPECT_EQ(worker->seat()->term, TermId{10});
  EXPECT_EQ(worker->seat()->epoch, EpochId{1});
  EXPECT_EQ(router.ids(1), Expected(record));
  EXPECT_EQ(router.last_frames_term, TermId{10});
}

TEST_F(DriverTest, WithoutANewTermItDoesNotLead) {
  NoTermStore none;
  Driver driver(options_, TermId{1}, &clock_, &transport_, &none, &driver_metrics_);
  FakeRouter router(&transport_);
  transport_.Say(router.peer(), Heartbeat{.term = TermId{9}});
  const absl::Status end = driver.Run();
  EXPECT_EQ(end.code(), absl::StatusCode::kUnavailable);
  while (router.Take()) {
  }
  EXPECT_TRUE(router.resigned);
}

// Everything at the same time, with a thread for each peer, for TSan.
TEST(DriverThreadsTest, TwoRoutersTwoRanksAndAStop) {
  constexpr int kRequests = 40;
  FakeTransport transport;
  RealClock clock;
  const std::unique_ptr<TermStore> terms = MakeMemoryTermStore();
  Metrics metrics("scheduler");
  DriverMetrics driver_metrics(&metrics);
  DriverOptions options;
  options.groups.heartbeat_silence_us = 600'000'000;  // The peers here send no heartbeats.
  Driver driver(options, TermId{1}, &clock, &transport, terms.get(), &driver_metrics);
  std::thread driving([&] { EXPECT_TRUE(driver.Run().ok()); });

  std::vector<std::thread> ranks;
  for (int rank : {0, 1}) {
    ranks.emplace_back([&transport, rank] {
      FakeWorker worker(&transport, rank == 0 ? "a" : "b", 2, rank);
      while (!worker.seated()) ASSERT_TRUE(worker.TakeControl());
      while (worker.TakePlan()) {
      }
    });
  }
  std::vector<std::thread> routers;
  std::atomic<int> exact = 0;
  for (int r : {0, 1}) {
    routers.emplace_back([&, r] {
      FakeRouter router(&transport, "router" + std::to_string(r));
      std::vector<Record> records;
      for (uint64_t i = 0; i < kRequests; ++i) {
        records.push_back(
            MakeRecord(std::to_string(r) + "-" + std::to_string(i), 3 + i % 20, 1 + i % 9));
        router.Submit(records.back(), i + 1);
      }
      for (uint64_t i = 0; i < kRequests; ++i) {
        while (!router.ended(i + 1)) ASSERT_TRUE(router.Take());
        exact += router.ids(i + 1) == Expected(records[i]);
      }
    });
  }
  for (auto& router : routers) router.join();
  EXPECT_EQ(exact, 2 * kRequests);
  driver.Stop();
  driving.join();
  transport.BreakAll();
  for (auto& rank : ranks) rank.join();
}

}  // namespace
}  // namespace fathom::scheduler
