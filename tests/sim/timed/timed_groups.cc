// Groups of a TimedWorld: their plans, their time, their losses; and the order of first admits.
#include <algorithm>
#include <cmath>
#include <utility>

#include "tests/sim/timed/timed_world.h"

namespace fathom::sim {

void TimedWorld::BringUp(size_t index) {
  Group& group = groups_[index];
  group.epoch = EpochId{next_epoch_++};
  const scheduler::GroupUp up{
      group.id,        TermId{1},   group.epoch,
      options_.limits, "simulated", {"model", "bfloat16", "simulated", options_.costs.tp, 1}};
  group.group = std::make_unique<TimedGroup>(up, options_.costs);
  group.busy_until_us = now_;
  Feed(group.core, up);
}

void TimedWorld::LoseGroup(size_t index) {
  Group& group = groups_[index];
  if (group.group == nullptr) return;
  ++report_.group_losses;
  group.group = nullptr;
  const TimeUs noticed_us =
      now_ + 1 + static_cast<TimeUs>(Draw(static_cast<uint64_t>(options_.notice_us_max)));
  At(noticed_us, [this, index, epoch = group.epoch] {
    Feed(groups_[index].core, scheduler::GroupLost{groups_[index].id, epoch});
  });
  At(noticed_us + 1 + static_cast<TimeUs>(Draw(static_cast<uint64_t>(options_.away_us_max))),
     [this, index] { BringUp(index); });
}

void TimedWorld::NextFault() {
  const auto gap = [this](TimeUs mean_us) {
    const double uniform = (static_cast<double>(Draw(1u << 30)) + 0.5) / (1u << 30);
    return now_ + 1 + std::llround(-std::log(uniform) * static_cast<double>(mean_us));
  };
  const TimeUs group_us = options_.group_loss_us > 0 ? gap(options_.group_loss_us) : INT64_MAX;
  const TimeUs router_us = options_.router_loss_us > 0 ? gap(options_.router_loss_us) : INT64_MAX;
  const TimeUs at_us = std::min(group_us, router_us);
  if (at_us >= options_.faults_until_us) return;
  At(at_us, [this, of_group = group_us < router_us] {
    if (of_group) {
      LoseGroup(Draw(groups_.size()));
    } else {
      LoseRouter(Draw(routers_.size()));
    }
    NextFault();
  });
}

void TimedWorld::SendPlan(scheduler::PlanOut out) {
  const auto index = static_cast<size_t>(out.group.value);
  Group& group = groups_[index];
  if (out.plan.epoch > group.epoch) return Fail("a plan of an epoch that did not begin");
  At(Arrival(&group.plan_lane_us),
     [this, index, plan = std::move(out.plan)] { Execute(index, plan); });
}

void TimedWorld::Execute(size_t index, const StepPlan& plan) {
  Group& group = groups_[index];
  if (group.group == nullptr || plan.epoch != group.epoch) return;  // Lost on the way.
  absl::StatusOr<TimedGroup::Step> step = group.group->Execute(plan);
  if (!step.ok()) return Fail("a plan breaks a rule: " + std::string(Message(step.status())));
  ++report_.steps;
  report_.rows += step->work.rows;
  report_.decode_rows += std::ranges::count_if(
      plan.chunks, [](const Chunk& c) { return std::holds_alternative<DecodeRow>(c.work); });
  report_.busy_us += step->us;
  report_.swapped_blocks += step->swapped_blocks;
  group.busy_until_us = std::max(group.busy_until_us, now_) + step->us;
  At(group.busy_until_us, [this, index, result = std::move(step->result)]() mutable {
    Group& from = groups_[index];
    if (from.group == nullptr || from.epoch != result.epoch) return;  // It died before the end.
    At(Arrival(&from.result_lane_us), [this, index, result = std::move(result)]() mutable {
      Feed(groups_[index].core, scheduler::StepDone{groups_[index].id, std::move(result)});
    });
  });
}

// The order of first slots, as the plans have it.
void TimedWorld::NoteAdmits(size_t core, const StepPlan& plan) {
  for (const Admit& admit : plan.admits) {
    if (admit.prompt_tokens == 0) continue;  // More ids of an earlier admit.
    Call& call = calls_[admit.seed - 1];
    report_.prompt_tokens += admit.prompt_tokens;
    report_.reused_tokens += admit.computed_tokens;
    if (!call.seated) Seat(core, call);
  }
}

void TimedWorld::Seat(size_t core, Call& call) {
  call.seated = true;
  const TimeUs waited_us = now_ - call.accepted_us;
  report_.wait_us_max = std::max(report_.wait_us_max, waited_us);
  if (options_.wait_us_max > 0 && waited_us > options_.wait_us_max) {
    Fail(fmt::format("a request of tenant '{}' waited {} us for its first slot; the bound is {}",
                     call.tenant, waited_us, options_.wait_us_max));
  }
  auto& unseated = cores_[core].unseated[call.tenant];
  for (const auto& [place, index] : unseated) {
    if (place >= call.place) break;
    Call& earlier = calls_[index];
    if (++earlier.overtaken_by <= options_.overtakes_max || options_.overtakes_max < 0) continue;
    Fail(fmt::format("{} later requests of tenant '{}' got a slot before request {}",
                     earlier.overtaken_by, call.tenant, earlier.record.key.request_id));
  }
  unseated.erase({call.place, call.record.seed - 1});
}

}  // namespace fathom::sim
