#include "scheduler/recorder/event_wire.h"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <variant>

#include "cluster/wire.h"
#include "recording.pb.h"

namespace fathom::scheduler {

namespace pb = recording::v1;

namespace {

void ToWire(const TenantLimits& from, pb::TenantLimits* to) {
  to->set_weight(from.weight);
  to->set_running_max(from.running_max);
  to->set_queued_max(from.queued_max);
  to->set_queued_tokens_max(from.queued_tokens_max);
  to->set_tokens_per_minute(from.tokens_per_minute);
}

absl::StatusOr<TenantLimits> LimitsFromWire(const pb::TenantLimits& from) {
  const TenantLimits to{.weight = from.weight(),
                        .running_max = from.running_max(),
                        .queued_max = from.queued_max(),
                        .queued_tokens_max = from.queued_tokens_max(),
                        .tokens_per_minute = from.tokens_per_minute()};
  const bool right = to.weight >= 1 && to.weight <= kTenantWeightMax && to.running_max >= 0 &&
                     to.running_max <= kTenantRequestsMax && to.queued_max >= 0 &&
                     to.queued_max <= kTenantRequestsMax && to.queued_tokens_max >= 0 &&
                     to.queued_tokens_max <= kTenantTokensMax && to.tokens_per_minute >= 0 &&
                     to.tokens_per_minute <= kTenantTokensMax;
  if (!right) return Invalid("TenantsChanged: a limit is outside of its range");
  return to;
}

absl::StatusOr<Event> TenantsFromWire(const pb::TenantsChanged& from) {
  TenantTable table{.prefill_cost = from.prefill_cost(), .decode_cost = from.decode_cost()};
  for (const int32_t cost : {table.prefill_cost, table.decode_cost}) {
    if (cost < 1 || cost > kTokenCostMax) {
      return Invalid("TenantsChanged: a cost of {}, not 1 to {}", cost, kTokenCostMax);
    }
  }
  FATHOM_ASSIGN_OR_RETURN(table.defaults, LimitsFromWire(from.defaults()));
  for (const auto& [name, limits] : from.tenants()) {
    FATHOM_ASSIGN_OR_RETURN(table.tenants[name], LimitsFromWire(limits));
  }
  return TenantsChanged{std::move(table)};
}

struct EventWriter {
  pb::Event* to;

  template <class M>
  void operator()(const Routed<M>& event) const {
    to->mutable_routed()->set_router(event.router.value);
    ToWire(event.message, to->mutable_routed()->mutable_message());
    if constexpr (std::is_same_v<M, Submit>) {
      to->mutable_routed()->set_deadline_us(event.message.deadline_us);
      to->mutable_routed()->set_age_us(event.message.age_us);
    }
  }
  void operator()(const RouterLost& event) const {
    to->mutable_router_lost()->set_router(event.router.value);
  }
  void operator()(const GroupUp& event) const {
    pb::GroupUp* up = to->mutable_group_up();
    up->set_group(event.group.value);
    up->set_term(event.term.value);
    up->set_epoch(event.epoch.value);
    pb::GroupLimits* limits = up->mutable_limits();
    limits->set_blocks(event.limits.blocks);
    limits->set_block_tokens(event.limits.block_tokens);
    limits->set_slots(event.limits.slots);
    limits->set_step_tokens(event.limits.step_tokens);
    limits->set_context_tokens(event.limits.context_tokens);
    limits->set_plans_in_flight(event.limits.plans_in_flight);
    limits->set_mixed_step_tokens(event.limits.mixed_step_tokens);
    limits->set_lanes(event.limits.lanes);
    limits->set_protocol(event.limits.protocol);
    limits->set_host_blocks(event.limits.host_blocks);
    limits->set_draft_max(event.limits.draft_max);
    limits->set_grammar_vocabulary(event.limits.grammar_vocabulary);
    up->set_fingerprint(event.fingerprint);
    ToWire(event.kind, up->mutable_kind());
  }
  void operator()(const GroupLost& event) const {
    to->mutable_group_lost()->set_group(event.group.value);
    to->mutable_group_lost()->set_epoch(event.epoch.value);
  }
  void operator()(const StepDone& event) const {
    to->mutable_step_done()->set_group(event.group.value);
    ToWire(event.result, to->mutable_step_done()->mutable_message());
  }
  void operator()(const Tick&) const { to->mutable_tick(); }
  void operator()(const GroupDrain& event) const {
    to->mutable_group_drain()->set_group(event.group.value);
    to->mutable_group_drain()->set_epoch(event.epoch.value);
  }
  void operator()(const TenantsChanged& event) const {
    pb::TenantsChanged* changed = to->mutable_tenants_changed();
    changed->set_prefill_cost(event.table.prefill_cost);
    changed->set_decode_cost(event.table.decode_cost);
    ToWire(event.table.defaults, changed->mutable_defaults());
    for (const auto& [name, limits] : event.table.tenants) {
      ToWire(limits, &(*changed->mutable_tenants())[name]);
    }
  }
};

absl::StatusOr<Event> RoutedFromWire(pb::Routed& from) {
  const PeerId router{from.router()};
  FATHOM_ASSIGN_OR_RETURN(RouteUpMessage message, FromWire(std::move(*from.mutable_message())));
  if (auto* submit = std::get_if<Submit>(&message)) {
    submit->deadline_us = from.deadline_us();
    submit->age_us = from.age_us();
    return Routed<Submit>{router, std::move(*submit)};
  }
  if (auto* suspend = std::get_if<Suspend>(&message)) {
    return Routed<Suspend>{router, std::move(*suspend)};
  }
  if (auto* close = std::get_if<Close>(&message)) {
    return Routed<Close>{router, std::move(*close)};
  }
  if (const auto* bad = std::get_if<SubmitUnreadable>(&message)) return bad->status;
  return Invalid("Routed.message: neither Submit nor Suspend nor Close");
}

absl::StatusOr<Event> GroupUpFromWire(const pb::GroupUp& from) {
  GroupUp up;
  up.group = GroupId{from.group()};
  up.term = TermId{from.term()};
  up.epoch = EpochId{from.epoch()};
  up.limits = {.blocks = from.limits().blocks(),
               .block_tokens = from.limits().block_tokens(),
               .slots = from.limits().slots(),
               .step_tokens = from.limits().step_tokens(),
               .context_tokens = from.limits().context_tokens(),
               .plans_in_flight = from.limits().plans_in_flight(),
               .mixed_step_tokens = from.limits().mixed_step_tokens(),
               .lanes = std::max(from.limits().lanes(), 1),
               .protocol = std::max(from.limits().protocol(), kProtocolMin),
               .host_blocks = std::max(from.limits().host_blocks(), 0),
               .draft_max = from.limits().draft_max(),
               .grammar_vocabulary = from.limits().grammar_vocabulary()};
  if (up.limits.blocks < 1 || up.limits.block_tokens < 1 || up.limits.slots < 1 ||
      up.limits.step_tokens < 1 || up.limits.plans_in_flight < 1) {
    return Invalid(
        "GroupUp.limits: blocks, block_tokens, slots, step_tokens and plans_in_flight "
        "are at least 1");
  }
  up.fingerprint = from.fingerprint();
  up.kind = FromWire(from.kind());
  return up;
}

absl::StatusOr<Event> StepDoneFromWire(pb::StepDone& from) {
  FATHOM_ASSIGN_OR_RETURN(StepsUpMessage message, FromWire(std::move(*from.mutable_message())));
  auto* result = std::get_if<StepResult>(&message);
  if (result == nullptr) return Invalid("StepDone.message: not a StepResult");
  return StepDone{GroupId{from.group()}, std::move(*result)};
}

}  // namespace

void EventToWire(const Event& event, pb::Event* to) { std::visit(EventWriter{to}, event); }

absl::StatusOr<Event> EventFromWire(pb::Event&& from) {
  switch (from.what_case()) {
    case pb::Event::kRouted:
      return RoutedFromWire(*from.mutable_routed());
    case pb::Event::kRouterLost:
      return RouterLost{PeerId{from.router_lost().router()}};
    case pb::Event::kGroupUp:
      return GroupUpFromWire(from.group_up());
    case pb::Event::kGroupLost:
      return GroupLost{GroupId{from.group_lost().group()}, EpochId{from.group_lost().epoch()}};
    case pb::Event::kStepDone:
      return StepDoneFromWire(*from.mutable_step_done());
    case pb::Event::kTick:
      return Tick{};
    case pb::Event::kGroupDrain:
      return GroupDrain{GroupId{from.group_drain().group()}, EpochId{from.group_drain().epoch()}};
    case pb::Event::kTenantsChanged:
      return TenantsFromWire(from.tenants_changed());
    case pb::Event::WHAT_NOT_SET:
      break;
  }
  return Invalid("Event.what: missing, or of a newer build");
}

}  // namespace fathom::scheduler
