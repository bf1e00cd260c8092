// Converts Hello and the other messages that Route and Control share.
#include "cluster/wire_parts.h"

namespace fathom {

namespace pb = cluster::v1;

namespace {

static_assert(static_cast<int>(Phase::kDraining) == pb::PHASE_DRAINING &&
                  static_cast<int>(Phase::kIdle) == pb::PHASE_IDLE,
              "Phase has the wire's numbers");
static_assert(static_cast<int>(Activity::kOnDevice) == pb::ACTIVITY_ON_DEVICE &&
                  static_cast<int>(Activity::kMlp) == pb::ACTIVITY_MLP,
              "Activity has the wire's numbers");
static_assert(static_cast<int>(StartPhase::kReady) == pb::START_PHASE_READY &&
                  static_cast<int>(StartPhase::kWeights) == pb::START_PHASE_WEIGHTS,
              "StartPhase has the wire's numbers");
static_assert(static_cast<int>(Role::kRouter) == pb::ROLE_ROUTER &&
                  static_cast<int>(Role::kScheduler) == pb::ROLE_SCHEDULER &&
                  static_cast<int>(Role::kWorker) == pb::ROLE_WORKER,
              "Role has the wire's numbers");

void StartToWire(const GroupStart& from, pb::GroupStart* to) {
  to->set_group(from.group);
  to->set_epoch(from.epoch.value);
  to->set_us(from.us);
  for (const RankStart& rank : from.ranks) {
    pb::RankStart* there = to->add_ranks();
    there->set_rank(rank.rank);
    there->set_process_id(rank.process_id);
    there->set_host(rank.host);
    ListToWire(rank.marks, there->mutable_marks());
  }
}

GroupStart StartFromWire(const pb::GroupStart& from) {
  GroupStart to{from.group(), EpochId{from.epoch()}, from.us(), {}};
  for (const pb::RankStart& rank : from.ranks()) {
    to.ranks.push_back({rank.rank(), rank.process_id(), rank.host(), MarksFromWire(rank.marks())});
  }
  return to;
}

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
  to->set_card(from.card);
  to->set_machine(from.machine);
  to->set_shared_memory(from.shared_memory);
  ListToWire(from.startup, to->mutable_startup());
  to->set_age_us(from.age_us);
  to->set_proposer(from.proposer);
  to->set_grammar_vocabulary(from.grammar_vocabulary);
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
          .recipe = from.recipe(),
          .card = from.card(),
          .machine = from.machine(),
          .shared_memory = from.shared_memory(),
          .startup = MarksFromWire(from.startup()),
          .age_us = from.age_us(),
          .proposer = from.proposer(),
          .grammar_vocabulary = from.grammar_vocabulary()};
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
  for (const GroupStart& start : from.cluster.starts) StartToWire(start, to->add_starts());
}

SchedulerFacts SchedulerFromWire(const pb::SchedulerHello& from) {
  SchedulerFacts to{from.leader(),
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
  for (const pb::GroupStart& start : from.starts()) {
    to.cluster.starts.push_back(StartFromWire(start));
  }
  return to;
}

}  // namespace

absl::Status UnknownMessage(const char* stream) {
  return Invalid(
      "{} message: empty or of a kind that this build does not know; it speaks protocol {} to {}",
      stream, kProtocolMin, kProtocolMax);
}

void ToWire(const StartMark& from, pb::StartMark* to) {
  to->set_phase(static_cast<pb::StartPhase>(from.phase));
  to->set_at_us(from.at_us);
  to->set_bytes(from.bytes);
}

std::vector<StartMark> MarksFromWire(
    const google::protobuf::RepeatedPtrField<pb::StartMark>& from) {
  std::vector<StartMark> to;
  for (const pb::StartMark& mark : from) {
    to.push_back({static_cast<StartPhase>(mark.phase()), mark.at_us(), mark.bytes()});
  }
  return to;
}

void ToWire(const EngineLimits& from, pb::WorkerLimits* to) {
  to->set_context_tokens(from.context_tokens);
  to->set_block_tokens(from.block_tokens);
  to->set_pool_blocks(from.pool_blocks);
  to->set_slots(from.slots);
  to->set_step_tokens(from.step_tokens);
  to->set_vocab(from.vocab);
  to->set_mixed_step_tokens(from.mixed_step_tokens);
  to->set_host_blocks(from.host_blocks);
  to->set_draft_max(from.draft_max);
}

EngineLimits FromWire(const pb::WorkerLimits& from) {
  return {.context_tokens = from.context_tokens(),
          .block_tokens = from.block_tokens(),
          .pool_blocks = from.pool_blocks(),
          .slots = from.slots(),
          .step_tokens = from.step_tokens(),
          .vocab = from.vocab(),
          .mixed_step_tokens = from.mixed_step_tokens(),
          .host_blocks = from.host_blocks(),
          .draft_max = from.draft_max()};
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
  to->set_activity(static_cast<pb::Activity>(from.work.activity));
  to->set_layer(from.work.layer + 1);
  to->set_step_collectives(from.work.step_collectives);
}

Heartbeat FromWire(const pb::Heartbeat& from) {
  return {
      .term = TermId{from.term()},
      .hears_leader = from.hears_leader(),
      .phase = static_cast<Phase>(from.phase()),
      .step = StepId{from.step()},
      .op = from.op(),
      .collective = from.collective(),
      .progress = from.progress(),
      .work = {static_cast<Activity>(from.activity()), from.layer() - 1, from.step_collectives()}};
}

}  // namespace fathom
