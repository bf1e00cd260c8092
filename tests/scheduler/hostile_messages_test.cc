// A hostile peer sends every message with every field at its least and greatest values, as bytes,
// to a driver whose group serves a router. No message may end the process or the group, and none
// may cause an allocation without a bound.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster.pb.h"
#include "cluster/terms.h"
#include "cluster/wire.h"
#include "cluster/wire_ranges.h"
#include "scheduler/driver.h"
#include "scheduler/transport/stream_bytes.h"
#include "tests/cluster/message_walk.h"
#include "tests/scheduler/driver_world.h"
#include "worker/engine/slots.h"

namespace fathom::scheduler {
namespace {

namespace pb = cluster::v1;

int64_t PeakBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

// The checks that a worker makes before it computes a plan; an error here would end the epoch.
class PlanReader {
 public:
  void Read(const StepPlan& plan) {
    pb::StepsDown wire;
    ToWire(plan, &wire);
    const absl::StatusOr<StepPlan> read = FromWire(std::move(wire));
    ASSERT_TRUE(read.ok()) << ToString(read.status());
    for (const SlotId slot : read->releases) Expect(slots_.Release(slot));
    for (const Admit& admit : read->admits) Expect(slots_.Admit(admit));
    for (const Extend& extend : read->extends) Expect(slots_.Append(extend));
  }

 private:
  static void Expect(const absl::Status& status) { EXPECT_TRUE(status.ok()) << ToString(status); }

  static EngineLimits Limits() {
    const GroupLimits limits = CoreHarness::Limits();
    return {.context_tokens = limits.context_tokens,
            .block_tokens = limits.block_tokens,
            .pool_blocks = limits.blocks,
            .slots = limits.slots,
            .step_tokens = limits.step_tokens,
            .vocab = 1000};
  }
  worker::Slots slots_{Limits()};
};

class HostileMessages : public testing::Test {
 protected:
  void SetUp() override {
    for (int rank = 0; rank < 2; ++rank) {
      workers_.push_back(
          std::make_unique<FakeWorker>(&transport_, "w" + std::to_string(rank), 2, rank));
    }
    workers_[0]->on_plan = [this](const StepPlan& plan) { reader_.Read(plan); };
    Settle();
    ASSERT_TRUE(workers_[0]->seated());
    epoch_ = workers_[0]->seat()->epoch;
    term_ = workers_[0]->seat()->term;
  }

  void TearDown() override {
    const Record record = MakeRecord("after", 9, 12);
    router_.Submit(record, 77);
    Settle();
    EXPECT_TRUE(router_.ended(77));
    EXPECT_EQ(router_.ids(77), Expected(record));
    EXPECT_LT(PeakBytes() - peak_, int64_t{1} << 30);
    std::printf("%lld variants\n", static_cast<long long>(variants_));
  }

  void Settle() {
    for (bool busy = true; busy;) {
      busy = false;
      for (; !transport_.idle(); busy = true) ASSERT_TRUE(driver_.RunOnce());
      for (auto& worker : workers_) {
        while (worker->TakeControl()) busy = true;
      }
      for (auto& worker : workers_) busy = worker->TakePlan() || busy;
      while (router_.Take()) busy = true;
    }
  }

  // Sends `hello`, if given, and then the message, on a stream of its own, which then breaks.
  template <class Up>
  void Attack(StreamKind kind, const std::optional<UpMessage>& hello, const Up& up,
              const std::string& what) {
    ++variants_;
    const std::string bytes = up.SerializeAsString();
    const PeerId peer = transport_.Open(kind);
    if (hello) transport_.Say(peer, *hello);
    absl::StatusOr<UpMessage> message = UpFromBytes(kind, bytes.data(), bytes.size());
    if (message.ok()) transport_.Say(peer, *std::move(message));
    Settle();
    transport_.Break(peer);
    Settle();
    ASSERT_TRUE(workers_[0]->seated()) << what;
    ASSERT_EQ(workers_[0]->seat()->epoch, epoch_) << what;
    ASSERT_EQ(workers_[0]->seat()->term, term_) << what;
  }

  template <class Up>
  void Walk(StreamKind kind, const std::optional<UpMessage>& hello, Up* up) {
    ExtremesWalk([&](const std::string& what) {
      if (!HasFatalFailure()) Attack(kind, hello, *up, what);
    }).Walk(up, up->GetDescriptor()->name());
  }

  const int64_t peak_ = PeakBytes();
  ManualClock clock_;
  FakeTransport transport_{&clock_};
  std::unique_ptr<TermStore> terms_ = MakeMemoryTermStore();
  Metrics metrics_{"scheduler"};
  DriverMetrics driver_metrics_{&metrics_};
  const DriverOptions options_{.process_id = "scheduler", .build = "test"};
  Driver driver_{options_,     *terms_->Take(TermId{0}), &clock_, &transport_,
                 terms_.get(), &driver_metrics_};
  FakeRouter router_{&transport_};
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  PlanReader reader_;
  EpochId epoch_;
  TermId term_;
  int64_t variants_ = 0;
};

// All fields but those for later use, which are refused.
pb::Hello FilledHello() {
  pb::Hello hello;
  FillMessage(&hello);
  hello.clear_features();
  hello.mutable_worker()->clear_last_started();
  hello.mutable_worker()->clear_last_finished();
  return hello;
}

TEST_F(HostileMessages, OnRoute) {
  pb::RouteUp up;
  up.mutable_hello()->CopyFrom(FilledHello());
  up.mutable_hello()->set_role(pb::ROLE_ROUTER);
  Walk(StreamKind::kRoute, std::nullopt, &up);
  FillMessage(up.mutable_heartbeat());
  Walk(StreamKind::kRoute, RouterHello("rogue"), &up);
  FillMessage(up.mutable_suspend());
  Walk(StreamKind::kRoute, RouterHello("rogue"), &up);
  FillMessage(up.mutable_close());
  Walk(StreamKind::kRoute, RouterHello("rogue"), &up);
}

// Each Submit has its own key, so that each is a new session.
TEST_F(HostileMessages, InASubmit) {
  pb::RouteUp up;
  FillMessage(up.mutable_submit());
  pb::Submit* submit = up.mutable_submit();
  submit->clear_key();
  FillMessage(submit->mutable_record());
  submit->mutable_record()->clear_fingerprints();
  submit->mutable_record()->mutable_request()->set_n(1);
  // Sent once with earlier tokens, and once as a new request, which runs.
  const auto attack = [&](const std::string& what) {
    if (HasFatalFailure()) return;
    pb::RouteUp one = up;
    if (one.submit().has_record() && one.submit().record().key().request_id() == "x") {
      one.mutable_submit()->mutable_record()->mutable_key()->set_request_id(
          "r" + std::to_string(variants_));
    }
    Attack(StreamKind::kRoute, RouterHello("rogue"), one, what);
  };
  ExtremesWalk(attack).Walk(submit, "Submit");
  submit->mutable_record()->clear_sequences();
  submit->mutable_record()->mutable_request()->clear_end_token_ids();
  ExtremesWalk(attack).Walk(submit, "Submit");
}

TEST_F(HostileMessages, OnControl) {
  pb::ControlUp up;
  pb::Hello* hello = up.mutable_hello();
  hello->CopyFrom(FilledHello());
  hello->set_role(pb::ROLE_WORKER);
  hello->set_config_digest("config");
  hello->mutable_worker()->set_weights_digest("weights");
  hello->mutable_worker()->set_model("tiny");
  hello->mutable_worker()->mutable_limits()->set_block_tokens(4);
  hello->mutable_worker()->mutable_limits()->set_vocab(1000);
  Walk(StreamKind::kControl, std::nullopt, &up);
  const Hello worker = WorkerHello("rogue", 2, 0);
  FillMessage(up.mutable_heartbeat());
  Walk(StreamKind::kControl, worker, &up);
  FillMessage(up.mutable_exchange());
  Walk(StreamKind::kControl, worker, &up);
  FillMessage(up.mutable_ready());
  Walk(StreamKind::kControl, worker, &up);
  FillMessage(up.mutable_failed());
  Walk(StreamKind::kControl, worker, &up);
}

TEST_F(HostileMessages, OnSteps) {
  pb::StepsUp up;
  FillMessage(up.mutable_hello());
  Walk(StreamKind::kSteps, std::nullopt, &up);
  FillMessage(up.mutable_result());
  Walk(StreamKind::kSteps, StepsHello{term_, epoch_, 0, "rogue"}, &up);
}

// A term far above every known one is refused, and the store is not changed.
TEST_F(HostileMessages, ATermFarAheadIsNotStored) {
  for (const uint64_t term : {kTermLeadMax + 2, (uint64_t{1} << 62) - 1, uint64_t{1} << 62}) {
    const PeerId peer = transport_.Open(StreamKind::kRoute);
    transport_.Say(peer, RouterHello("rogue", term));
    Settle();
    EXPECT_TRUE(transport_.closed(peer).has_value());
  }
  EXPECT_EQ(terms_->Take(TermId{0})->value, term_.value + 1);
}

}  // namespace
}  // namespace fathom::scheduler
