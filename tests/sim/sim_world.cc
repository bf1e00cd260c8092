#include "tests/sim/sim_world.h"

#include <algorithm>
#include <utility>

#include "tests/sim/model.h"

namespace fathom::sim {
namespace {

constexpr TimeUs kSecondUs = 1'000'000;

scheduler::CoreOptions CoreOptionsOf(const WorldOptions& options) {
  return {.policy = options.policy,
          .waiting_requests_max = 64,
          .waiting_tokens_max = 2000,
          .session_memory_bytes_max = 6 << 20,
          .record_keep_us = 20 * kSecondUs,
          .router_grace_us = kSecondUs,
          .run_ahead_max = options.run_ahead_max};
}

}  // namespace

World::World(const WorldOptions& options) : options_(options), rng_(options.seed) {
  NewCore();
  for (int32_t i = 0; i < options.routers; ++i) routers_.push_back(PeerId{next_peer_++});
  for (int32_t i = 0; i < options.groups; ++i) {
    groups_.push_back({.id = GroupId{i}, .epoch = {}, .fingerprint = "kind-a", .group = nullptr});
    After(static_cast<TimeUs>(Draw(kSecondUs)), [this, i] { BringUp(static_cast<size_t>(i)); });
  }
}

void World::Run() {
  After(1, [this] { Arrive(); });
  After(kSecondUs, [this] { EverySecond(); });
  const auto all_sent = [this] { return specs_.size() == static_cast<size_t>(options_.requests); };
  RunUntil(all_sent, now_ + 3600 * kSecondUs);
  if (!failures_.empty()) return;
  faults_ = false;
  RunUntil([this] { return open_ == 0; }, now_ + 600 * kSecondUs);
  if (open_ != 0) Fail(fmt::format("{} clients have no end after the faults stopped", open_));
  // Waits for late steps and resumes of abandoned sessions, then until the records expire.
  RunUntil([] { return false; }, now_ + 30 * kSecondUs);
  CheckEmpty();
}

void World::CheckEmpty() {
  while (core_->NextWakeup() < now_ + 60 * kSecondUs) {
    now_ = std::max(now_, core_->NextWakeup());
    Feed(scheduler::Tick{});
  }
  const scheduler::CoreStats stats = core_->Stats();
  if (stats.blocks_used != 0) Fail(fmt::format("{} KV blocks leaked", stats.blocks_used));
  if (stats.requests_running + stats.requests_waiting + stats.sessions != 0) {
    Fail(fmt::format("{} run, {} wait, {} records are kept at the end", stats.requests_running,
                     stats.requests_waiting, stats.sessions));
  }
  if (stats.session_bytes != 0) Fail(fmt::format("{} bytes leaked", stats.session_bytes));
}

// ---- Machinery

void World::Push(TimeUs at_us, std::function<void()> run) {
  queue_.push_back({at_us, next_order_++, std::move(run)});
  std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
}

void World::After(TimeUs delay_us, std::function<void()> run) {
  Push(now_ + delay_us, std::move(run));
}

void World::Send(uint64_t lane, std::function<void()> run) {
  TimeUs& last_us = lane_us_[lane];
  last_us = std::max(last_us, now_ + 50 + static_cast<TimeUs>(Draw(2000)));
  Push(last_us, std::move(run));
}

void World::Fail(std::string what) {
  if (failures_.size() < 10) failures_.push_back(fmt::format("at {} us: {}", now_, what));
}

void World::RunUntil(const std::function<bool()>& done, TimeUs limit_us) {
  while (!done() && failures_.empty()) {
    const TimeUs next_us = queue_.empty() ? limit_us : queue_.front().at_us;
    const TimeUs wake_us = core_->NextWakeup();
    if (std::min(next_us, wake_us) >= limit_us) break;
    if (wake_us < next_us) {
      now_ = std::max(now_, wake_us);
      Feed(scheduler::Tick{});
      continue;
    }
    now_ = next_us;
    std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
    const std::function<void()> run = std::move(queue_.back().run);
    queue_.pop_back();
    run();
  }
  now_ = std::max(now_, done() ? now_ : limit_us);
}

void World::NewCore() {
  const scheduler::CoreOptions options = CoreOptionsOf(options_);
  core_ = std::make_unique<scheduler::SchedulerCore>(options);
  if (options_.observer != nullptr) options_.observer->OnCore(options);
}

void World::Feed(scheduler::Event event) {
  ++report_.events;
  std::optional<scheduler::Event> observed;
  if (options_.observer != nullptr) observed = event;
  const scheduler::Actions actions = core_->Step(std::move(event), now_);
  HashActions(actions);
  if (observed) options_.observer->OnEvent(*observed, now_, actions);
  if (report_.events % options_.check_every_events == 0) {
    const absl::Status status = core_->CheckInvariants();
    if (!status.ok()) Fail(std::string(Message(status)));
  }
  Carry(actions);
}

void World::Carry(const scheduler::Actions& actions) {
  auto to_router = [&](PeerId router, std::function<void()> run) {
    Send(static_cast<uint64_t>(router.value) * 2, std::move(run));
  };
  for (const auto& out : actions.accepted) {
    to_router(out.router, [this, out] {
      const auto& [router, accepted] = out;
      Listener* listener = Attached(router, accepted.attempt);
      if (listener == nullptr) return;
      listener->accepted = true;
      if (accepted.record) listener->record.prompt_logprobs = accepted.record->prompt_logprobs;
    });
  }
  for (const auto& out : actions.refused) to_router(out.router, [this, out] { OnRefused(out); });
  for (const auto& out : actions.frames) to_router(out.router, [this, out] { OnFrame(out); });
  for (const auto& out : actions.plans) OnPlan(out);
  for (const auto& out : actions.drained) OnDrained(out);
  for (const auto& out : actions.aborts) Fail("the core aborts a group: " + out.reason);
}

void World::HashActions(const scheduler::Actions& actions) {
  uint64_t h = action_hash_;
  auto mix = [&](uint64_t value) { h = Mix(h, value); };
  for (const auto& [router, accepted] : actions.accepted) {
    mix(accepted.attempt.value), mix(accepted.seed);
  }
  for (const auto& [router, refused] : actions.refused) {
    mix(refused.attempt.value), h = Mix(h, Message(refused.status));
  }
  for (const auto& [router, frame] : actions.frames) {
    mix(frame.attempt.value), mix(static_cast<uint64_t>(frame.position));
    for (TokenId id : frame.ids) mix(static_cast<uint64_t>(id));
    if (frame.finish) mix(static_cast<uint64_t>(frame.finish->reason));
  }
  for (const auto& [group, plan] : actions.plans) {
    mix(static_cast<uint64_t>(group.value)), mix(plan.epoch.value), mix(plan.step.value);
    for (SlotId slot : plan.releases) mix(static_cast<uint64_t>(slot.value));
    for (const Admit& admit : plan.admits) mix(admit.seed), mix(admit.ids.size());
    for (const Extend& extend : plan.extends) {
      for (BlockId block : extend.block_ids) mix(static_cast<uint64_t>(block.value));
    }
    for (const Chunk& chunk : plan.chunks) {
      const auto* count = std::get_if<int32_t>(&chunk.work);
      mix(static_cast<uint64_t>(chunk.slot.value));
      mix(count != nullptr ? static_cast<uint64_t>(*count) : 1u << 20);
    }
  }
  action_hash_ = h;
}

// ---- Groups

void World::OnPlan(const scheduler::PlanOut& out) {
  SimGroup& group = groups_[static_cast<size_t>(out.group.value)];
  // The group is gone, so the plan is lost.
  if (group.group == nullptr || out.plan.term != term_) return;
  absl::StatusOr<StepResult> result = group.group->Execute(out.plan);
  if (!result.ok()) return Fail("a plan breaks a rule: " + std::string(Message(result.status())));
  ++report_.steps;
  group.busy_until_us =
      std::max(group.busy_until_us, now_ + 200) + 500 + static_cast<TimeUs>(Draw(5000));
  const TimeUs at_us = group.busy_until_us;
  After(at_us - now_, [this, id = out.group, at_us, result = *std::move(result)]() mutable {
    const SimGroup& sender = groups_[static_cast<size_t>(id.value)];
    const bool lost = sender.cut_us != 0 && at_us > sender.cut_us && sender.epoch == result.epoch;
    if (!lost && result.term == term_) Feed(scheduler::StepDone{id, std::move(result)});
  });
}

void World::BringUp(size_t index) {
  SimGroup& group = groups_[index];
  const std::string kind = faults_ && Chance(options_.other_kind_permille) ? "kind-b" : "kind-a";
  if (kind != group.fingerprint) ++report_.fingerprints_changed;
  group.fingerprint = kind;
  group.epoch = EpochId{next_epoch_++};
  group.cut_us = 0;
  const scheduler::GroupUp up{group.id,        term_, group.epoch,
                              options_.limits, kind,  {"model", "float32", kind, 1, 1}};
  group.group = std::make_unique<FakeGroup>(up);
  group.busy_until_us = now_;
  Feed(up);
}

void World::LoseGroup(size_t index) {
  SimGroup& group = groups_[index];
  if (group.group == nullptr) return;
  ++report_.group_losses;
  group.group = nullptr;
  group.cut_us = now_ + static_cast<TimeUs>(Draw(8000));
  After(static_cast<TimeUs>(Draw(20'000)),
        [this, id = group.id, epoch = group.epoch, term = term_] {
          if (term == term_) Feed(scheduler::GroupLost{id, epoch});
        });
  BringUpLater(index);
}

void World::BringUpLater(size_t index) {
  After(50'000 + static_cast<TimeUs>(Draw(3 * kSecondUs)), [this, index, term = term_] {
    if (term == term_) BringUp(index);
  });
}

void World::DrainGroup(size_t index) {
  const SimGroup& group = groups_[index];
  if (group.group == nullptr) return;
  ++report_.drains;
  Feed(scheduler::GroupDrain{group.id, group.epoch});
}

void World::OnDrained(const scheduler::GroupDrained& out) {
  const auto index = static_cast<size_t>(out.group.value);
  SimGroup& group = groups_[index];
  if (group.group == nullptr || group.epoch != out.epoch) return;  // It was lost before.
  if (group.busy_until_us > now_) Fail("a group is drained with a step in flight");
  ++report_.drained;
  group.group = nullptr;
  After(static_cast<TimeUs>(Draw(20'000)), [this, out, term = term_] {
    if (term == term_) Feed(scheduler::GroupLost{out.group, out.epoch});
  });
  BringUpLater(index);
}

// ---- Faults

void World::EverySecond() {
  if (!faults_) return;
  After(kSecondUs, [this] { EverySecond(); });
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (Chance(options_.group_loss_permille)) LoseGroup(i);
    if (options_.drain_permille > 0 && Chance(options_.drain_permille)) DrainGroup(i);
  }
  for (size_t i = 0; i < routers_.size(); ++i) {
    if (Chance(options_.router_loss_permille)) LoseRouter(i);
  }
  if (Chance(options_.takeover_permille)) TakeOver();
}

void World::LoseRouter(size_t index) {
  const PeerId gone = routers_[index];
  ++report_.router_losses;
  routers_[index] = PeerId{next_peer_++};
  Send(static_cast<uint64_t>(gone.value) * 2 + 1, [this, gone, term = term_] {
    if (term == term_) Feed(scheduler::RouterLost{gone});
  });
  for (size_t i = 0; i < listeners_.size(); ++i) {
    Listener& listener = listeners_[i];
    if (!listener.attached || listener.router != gone) continue;
    listener.attached = false;
    Reattach(i, static_cast<TimeUs>(Draw(2 * kSecondUs)));
  }
}

void World::TakeOver() {
  ++report_.takeovers;
  ++term_.value;
  NewCore();
  for (size_t i = 0; i < groups_.size(); ++i) {
    groups_[i].group = nullptr;
    After(20'000 + static_cast<TimeUs>(Draw(kSecondUs)), [this, i, term = term_] {
      if (term == term_) BringUp(i);
    });
  }
  for (PeerId& router : routers_) router = PeerId{next_peer_++};
  for (size_t i = 0; i < listeners_.size(); ++i) {
    Listener& listener = listeners_[i];
    if (!listener.attached) continue;
    listener.attached = false;
    Reattach(i, static_cast<TimeUs>(Draw(300'000)));
  }
}

}  // namespace fathom::sim
