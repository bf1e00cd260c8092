// tests/scheduler/driver_world.h: the peers of a driver under test: workers that execute plans with
// the simulation's fake group, and routers that collect frames. Thread: one for each object.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/scheduler/core_harness.h"
#include "tests/scheduler/fake_transport.h"
#include "tests/sim/fake_group.h"

namespace fathom::scheduler {

inline Hello RouterHello(const std::string& process, uint64_t term_seen = 0) {
  Hello hello;
  hello.process_id = process;
  hello.role = Role::kRouter;
  hello.term_seen = TermId{term_seen};
  return hello;
}

inline Hello WorkerHello(const std::string& process, int32_t tp, int32_t preferred_rank,
                         int32_t pp = 1) {
  Hello hello = RouterHello(process);
  hello.role = Role::kWorker;
  hello.config_digest = "config";
  const GroupLimits limits = CoreHarness::Limits();
  hello.worker = WorkerFacts{.host = "h",
                             .device = "cpu",
                             .model = "tiny",
                             .weights_digest = "weights",
                             .fingerprint = "kind",
                             .limits = {limits.context_tokens, limits.block_tokens, limits.blocks,
                                        limits.slots, limits.step_tokens, 1000},
                             .tp = tp,
                             .pp = pp,
                             .preferred_rank = preferred_rank};
  return hello;
}

// One rank. Every rank executes the plans; only the answering one sends rows.
class FakeWorker {
 public:
  FakeWorker(FakeTransport* transport, std::string process, int32_t tp, int32_t rank,
             int32_t pp = 1)
      : transport_(*transport),
        process_(std::move(process)),
        control_(transport_.Open(StreamKind::kControl)) {
    transport_.Say(control_, WorkerHello(process_, tp, rank, pp));
  }

  // Handles one message of Control. Returns false if none waits or the stream has ended.
  bool TakeControl() {
    const std::optional<DownMessage> message = transport_.Hear(control_);
    if (!message) return false;
    if (const auto* seat = std::get_if<GroupSeat>(&*message)) {
      seat_ = *seat;
      const GroupLimits limits{seat->blocks,
                               seat->limits.block_tokens,
                               seat->limits.slots,
                               seat->limits.step_tokens,
                               seat->limits.context_tokens,
                               seat->pp + 1};
      group_ = std::make_unique<sim::FakeGroup>(
          GroupUp{seat->group, seat->term, seat->epoch, limits, "kind"});
      steps_ = transport_.Open(StreamKind::kSteps);
      transport_.Say(*steps_, StepsHello{seat->term, seat->epoch, seat->rank, process_});
      transport_.Say(control_, GroupReady{seat->term, seat->epoch, seat->rank});
    } else if (std::holds_alternative<Abort>(*message)) {
      if (steps_) transport_.Break(*steps_);
      steps_.reset();
    }
    return true;
  }

  // Executes one plan and sends its result. Returns false if none waits or the stream has ended.
  bool TakePlan() {
    if (!steps_) return false;
    const std::optional<DownMessage> message = transport_.Hear(*steps_);
    if (!message) return false;
    if (on_plan) on_plan(std::get<StepPlan>(*message));
    absl::StatusOr<StepResult> result = group_->Execute(std::get<StepPlan>(*message));
    EXPECT_TRUE(result.ok()) << ToString(result.status());
    if (!result.ok()) return false;
    result->rank = seat_->rank;
    if (seat_->rank != seat_->shape().answering_rank()) result->rows.clear();
    transport_.Say(*steps_, *std::move(result));
    return true;
  }

  void Die() {
    if (steps_) transport_.Break(*steps_);
    transport_.Break(control_);
    steps_.reset();
  }
  void Say(UpMessage message) { transport_.Say(control_, std::move(message)); }
  bool seated() const { return steps_.has_value(); }
  PeerId control() const { return control_; }
  const std::optional<GroupSeat>& seat() const { return seat_; }

  std::function<void(const StepPlan&)> on_plan;  // Called with each plan before it is executed.

 private:
  FakeTransport& transport_;
  const std::string process_;
  const PeerId control_;
  std::optional<PeerId> steps_;
  std::optional<GroupSeat> seat_;
  std::unique_ptr<sim::FakeGroup> group_;
};

// Submits and checks the answers: Accepted first, frames without gaps, one end.
class FakeRouter {
 public:
  explicit FakeRouter(FakeTransport* transport, const std::string& process = "router")
      : transport_(*transport), peer_(transport_.Open(StreamKind::kRoute)) {
    transport_.Say(peer_, RouterHello(process));
  }

  void Submit(const Record& record, uint64_t attempt) {
    requests_[attempt];
    transport_.Say(peer_, CoreHarness::SubmitEvent(record, attempt).message);
  }

  // Handles one message. Returns false if none waits or the stream has ended.
  bool Take() {
    std::optional<DownMessage> message = transport_.Hear(peer_);
    if (!message) return false;
    if (auto* hello = std::get_if<Hello>(&*message)) hellos.push_back(*hello->scheduler);
    if (auto* accepted = std::get_if<Accepted>(&*message))
      requests_[accepted->attempt.value].accepted = true;
    if (auto* refused = std::get_if<Refused>(&*message)) refusals.push_back(*refused);
    if (auto* stats = std::get_if<ClusterStats>(&*message)) last_stats = *stats;
    if (std::holds_alternative<Resign>(*message)) resigned = true;
    if (auto* batch = std::get_if<Frames>(&*message)) {
      last_frames_term = batch->term;
      for (const Frame& frame : batch->frames) TakeFrame(frame);
    }
    return true;
  }

  bool ended(uint64_t attempt) { return requests_[attempt].ledger.end.has_value(); }
  const std::vector<TokenId>& ids(uint64_t attempt) { return requests_[attempt].ledger.ids; }
  PeerId peer() const { return peer_; }

  std::vector<SchedulerFacts> hellos;
  std::vector<Refused> refusals;
  ClusterStats last_stats;
  TermId last_frames_term;
  bool resigned = false;

 private:
  struct Request {
    bool accepted = false;
    Ledger ledger;
  };

  void TakeFrame(const Frame& frame) {
    Request& request = requests_[frame.attempt.value];
    EXPECT_TRUE(request.accepted) << "a frame before Accepted";
    Actions one;
    one.frames.push_back({peer_, frame});
    request.ledger.Take(one, frame.attempt.value);
  }

  FakeTransport& transport_;
  const PeerId peer_;
  std::map<uint64_t, Request> requests_;
};

}  // namespace fathom::scheduler
