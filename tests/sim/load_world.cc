#include "tests/sim/load_world.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace fathom::sim {

using scheduler::Event;
using scheduler::Routed;

constexpr PeerId kRouter{1};
constexpr GroupId kGroup{0};

LoadWorld::LoadWorld(const LoadOptions& options) : options_(options), core_(options.core) {
  Feed(scheduler::TenantsChanged{options.tenants});
  const scheduler::GroupUp up{kGroup,         TermId{1}, EpochId{1},
                              options.limits, "kind",    {.model_digest = "model"}};
  group_ = std::make_unique<FakeGroup>(up);
  Feed(up);
}

void LoadWorld::At(TimeUs at_us, std::function<void()> run) {
  queue_.push({std::max(at_us, now_), order_++, std::move(run)});
}

size_t LoadWorld::Add(const std::string& tenant, TimeUs at_us, int32_t prompt, int32_t answer,
                      int64_t deadline_us, int32_t priority) {
  const size_t index = requests_.size();
  LoadRequest& request = requests_.emplace_back();
  request.record.key = {tenant, std::to_string(index)};
  request.record.seed = 1000;  // No fault.
  request.record.priority = priority;
  request.record.prompt_ids.assign(static_cast<size_t>(prompt), 7);
  request.record.request.stop.max_tokens = answer;
  request.at_us = at_us;
  request.deadline_us = deadline_us;
  At(at_us, [this, index] { Submit(index); });
  return index;
}

void LoadWorld::Submit(size_t index) {
  LoadRequest& request = requests_[index];
  ++request.tries;
  fathom::Submit submit{.attempt = AttemptId{next_attempt_++},
                        .key = request.record.key,
                        .record = request.record,
                        .router_blob = ""};
  submit.deadline_us = request.deadline_us;
  attempts_[submit.attempt] = index;
  Feed(Routed<fathom::Submit>{kRouter, std::move(submit)});
}

void LoadWorld::Feed(const Event& event) {
  const scheduler::Actions actions = core_.Step(event, now_);
  for (const auto& [router, accepted] : actions.accepted) {
    requests_[attempts_.at(accepted.attempt)].accepted_us = now_;
  }
  for (const auto& [router, refused] : actions.refused) {
    const size_t index = attempts_.at(refused.attempt);
    const ErrorDetail detail = *DetailOf(refused.status);
    requests_[index].refused = detail.reason;
    if (on_refused) on_refused(index, refused);
    if (!options_.obey || detail.retry_after_ms == 0) continue;
    At(now_ + detail.retry_after_ms * 1000, [this, index] { Submit(index); });
  }
  for (const auto& [router, frame] : actions.frames) {
    LoadRequest& request = requests_[attempts_.at(frame.attempt)];
    if (!frame.ids.empty() && request.first_token_us < 0) request.first_token_us = now_;
    if (frame.finish || !frame.error.ok()) request.end_us = now_;
  }
  for (const scheduler::PlanOut& out : actions.plans) {
    absl::StatusOr<StepResult> result = group_->Execute(out.plan);
    ASSERT_TRUE(result.ok()) << ToString(result.status());
    int64_t rows = 0;
    for (const Chunk& chunk : out.plan.chunks) {
      const auto* tokens = std::get_if<int32_t>(&chunk.work);
      rows += tokens != nullptr ? *tokens : 1;
    }
    busy_until_us_ = std::max(busy_until_us_, now_) + options_.step_us + rows * options_.row_us;
    At(busy_until_us_,
       [this, done = scheduler::StepDone{kGroup, *std::move(result)}] { Feed(done); });
  }
  ASSERT_TRUE(actions.aborts.empty());
}

void LoadWorld::Run(TimeUs end_us) {
  while (!queue_.empty() && queue_.top().at_us < end_us) {
    Timed next = queue_.top();
    queue_.pop();
    if (const TimeUs due = core_.NextWakeup(); due < next.at_us) {
      queue_.push(std::move(next));
      now_ = std::max(now_, due);
      Feed(scheduler::Tick{});
      continue;
    }
    now_ = next.at_us;
    next.run();
  }
  const absl::Status status = core_.CheckInvariants();
  EXPECT_TRUE(status.ok()) << ToString(status);
}

}  // namespace fathom::sim
