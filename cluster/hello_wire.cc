// Converts Hello and the other messages that Route and Control share.
#include "cluster/wire_parts.h"

namespace fathom {

namespace pb = cluster::v1;

namespace {

static_assert(static_cast<int>(Phase::kDraining) == pb::PHASE_DRAINING &&
                  static_cast<int>(Phase::kIdle) == pb::PHASE_IDLE,
              "Phase has the wire's numbers");
static_assert(static_cast<int>(Role::kRouter) == pb::ROLE_ROUTER &&
                  static_cast<int>(Role::kScheduler) == pb::ROLE_SCHEDULER &&
                  static_cast<int>(Role::kWorker) == pb::ROLE_WORKER,
              "Role has the wire's numbers");

void WorkerToWire(const WorkerFacts& from, pb::WorkerHello* to) {
  to->set_host(from.host);
  to->set_device(from.device);
  to->set_memory_bytes(from.memory_bytes);
  to->set_model(from.model);
  to->set_weights_digest(from.weights_digest);
  to->set_fingerprint(from.fingerprint);
  ToWire(from.limits, to->mutable_limits());
  to->set_tp(from.tp);
  to->set_pp(from.pp);
  to->set_preferred_rank(from.preferred_rank);
  to->set_health_address(from.health_address);
  to->set_device_kind(from.device_kind);
  to->set_dtype(from.dtype);
  to->set_recipe(from.recipe);
}

WorkerFacts WorkerFromWire(const pb::WorkerHello& from) {
  return {.host = from.host(),
          .device = from.device(),
          .memory_bytes = from.memory_bytes(),
          .model = from.model(),
          .weights_digest = from.weights_digest(),
          .fingerprint = from.fingerprint(),
          .limits = FromWire(from.limits()),
          .tp = from.tp(),
          .pp = from.pp(),
          .preferred_rank = from.preferred_rank(),
          .health_address = from.health_address(),
          .device_kind = from.device_kind(),
          .dtype = from.dtype(),
          .recipe = from.recipe()};
}

void SchedulerToWire(const SchedulerFacts& from, pb::SchedulerHello* to) {
  to->set_leader(from.leader);
  to->set_term(from.term.value);
  to->set_model(from.cluster.model);
  to->set_config_digest(from.cluster.config_digest);
  to->set_fingerprint(from.cluster.fingerprint);
  to->set_context_tokens(from.cluster.context_tokens);
  to->set_block_tokens(from.cluster.block_tokens);
  to->set_pool_blocks(from.cluster.pool_blocks);
  to->set_groups(from.cluster.groups);
  to->set_vocab(from.cluster.vocab);
  to->set_device_kind(from.cluster.device_kind);
  to->set_dtype(from.cluster.dtype);
}

SchedulerFacts SchedulerFromWire(const pb::SchedulerHello& from) {
  return {from.leader(),
          TermId{from.term()},
          {.model = from.model(),
           .config_digest = from.config_digest(),
           .fingerprint = from.fingerprint(),
           .context_tokens = from.context_tokens(),
           .block_tokens = from.block_tokens(),
           .pool_blocks = from.pool_blocks(),
           .groups = from.groups(),
           .vocab = from.vocab(),
           .device_kind = from.device_kind(),
           .dtype = from.dtype()}};
}

}  // namespace

absl::Status UnknownMessage(const char* stream) {
  return Invalid(
      "{} message: empty or of a kind that this build does not know; it speaks protocol {} to {}",
      stream, kProtocolMin, kProtocolMax);
}

void ToWire(const EngineLimits& from, pb::WorkerLimits* to) {
  to->set_context_tokens(from.context_tokens);
  to->set_block_tokens(from.block_tokens);
  to->set_pool_blocks(from.pool_blocks);
  to->set_slots(from.slots);
  to->set_step_tokens(from.step_tokens);
  to->set_vocab(from.vocab);
  to->set_mixed_step_tokens(from.mixed_step_tokens);
}

EngineLimits FromWire(const pb::WorkerLimits& from) {
  return {from.context_tokens(), from.block_tokens(), from.pool_blocks(),      from.slots(),
          from.step_tokens(),    from.vocab(),        from.mixed_step_tokens()};
}

void ToWire(const Hello& from, pb::Hello* to) {
  to->Clear();
  to->set_process_id(from.process_id);
  to->set_role(static_cast<pb::Role>(from.role));
  to->set_protocol_min(from.protocol_min);
  to->set_protocol_max(from.protocol_max);
  to->set_build(from.build);
  to->set_term_seen(from.term_seen.value);
  to->set_config_digest(from.config_digest);
  if (from.worker) WorkerToWire(*from.worker, to->mutable_worker());
  if (from.scheduler) SchedulerToWire(*from.scheduler, to->mutable_scheduler());
}

absl::StatusOr<Hello> FromWire(const pb::Hello& from) {
  if (from.features_size() > 0) return NotBuilt("Hello.features");
  if (from.worker().has_last_started()) return NotBuilt("WorkerHello.last_started");
  if (from.worker().has_last_finished()) return NotBuilt("WorkerHello.last_finished");
  Hello to;
  to.process_id = from.process_id();
  to.role = static_cast<Role>(from.role());
  to.protocol_min = from.protocol_min();
  to.protocol_max = from.protocol_max();
  to.build = from.build();
  to.term_seen = TermId{from.term_seen()};
  to.config_digest = from.config_digest();
  if (from.has_worker()) to.worker = WorkerFromWire(from.worker());
  if (from.has_scheduler()) to.scheduler = SchedulerFromWire(from.scheduler());
  return to;
}

void ToWire(const Heartbeat& from, pb::Heartbeat* to) {
  to->set_term(from.term.value);
  to->set_hears_leader(from.hears_leader);
  to->set_phase(static_cast<pb::Phase>(from.phase));
  to->set_step(from.step.value);
  to->set_op(from.op);
  to->set_collective(from.collective);
  to->set_progress(from.progress);
}

Heartbeat FromWire(const pb::Heartbeat& from) {
  return {.term = TermId{from.term()},
          .hears_leader = from.hears_leader(),
          .phase = static_cast<Phase>(from.phase()),
          .step = StepId{from.step()},
          .op = from.op(),
          .collective = from.collective(),
          .progress = from.progress()};
}

}  // namespace fathom
