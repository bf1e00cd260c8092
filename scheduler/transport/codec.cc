#include "scheduler/transport/codec.h"

#include <google/protobuf/arena.h>

#include <utility>

#include "cluster.pb.h"
#include "cluster/wire.h"
#include "cluster/wire_ranges.h"
#include "common/check.h"

namespace fathom::scheduler {
namespace {

namespace pb = cluster::v1;

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;  // clang-tidy's clang needs it said.

// ---- Up ----

StepMark MarkOf(const pb::StepMark& from) {
  return {TermId{from.term()}, EpochId{from.epoch()}, StepId{from.step()}};
}

WorkerFacts FactsOf(const pb::WorkerHello& from) {
  const pb::WorkerLimits& limits = from.limits();
  return {from.host(),
          from.device(),
          from.memory_bytes(),
          from.model(),
          from.weights_digest(),
          from.fingerprint(),
          {limits.context_tokens(), limits.block_tokens(), limits.pool_blocks(), limits.slots(),
           limits.step_tokens(), limits.vocab(), limits.mixed_step_tokens()},
          MarkOf(from.last_started()),
          MarkOf(from.last_finished()),
          from.tp(),
          from.pp(),
          from.preferred_rank(),
          from.health_address(),
          from.device_kind(),
          from.dtype(),
          from.recipe()};
}

PeerHello HelloOf(const pb::Hello& from) {
  PeerHello to;
  to.process_id = from.process_id();
  to.role = from.role() == pb::ROLE_ROUTER      ? Role::kRouter
            : from.role() == pb::ROLE_WORKER    ? Role::kWorker
            : from.role() == pb::ROLE_SCHEDULER ? Role::kScheduler
                                                : Role::kUnspecified;
  to.protocol_min = from.protocol_min();
  to.protocol_max = from.protocol_max();
  to.features.assign(from.features().begin(), from.features().end());
  to.build = from.build();
  to.term_seen = TermId{from.term_seen()};
  to.config_digest = from.config_digest();
  if (from.has_worker()) to.worker = FactsOf(from.worker());
  return to;
}

Phase PhaseOf(pb::Phase phase) {
  return pb::Phase_IsValid(phase) ? static_cast<Phase>(phase) : Phase::kUnspecified;
}
static_assert(static_cast<int>(Phase::kDraining) == pb::PHASE_DRAINING &&
                  static_cast<int>(Phase::kIdle) == pb::PHASE_IDLE,
              "Phase has the wire's numbers");

Heartbeat HeartbeatOf(const pb::Heartbeat& from) {
  return {TermId{from.term()}, from.hears_leader(), PhaseOf(from.phase()), StepId{from.step()},
          from.op(),           from.collective(),   from.progress()};
}

SessionKey KeyOf(const pb::SessionKey& from) { return {from.tenant(), from.request_id()}; }

absl::StatusOr<Submitted> SubmitOf(const pb::Submit& from, PeerId router) {
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from));
  FATHOM_RETURN_IF_ERROR(CheckRanges(from));
  Submitted to;
  to.router = router;
  to.attempt = AttemptId{from.attempt()};
  switch (from.subject_case()) {
    case pb::Submit::kRecord: {
      FATHOM_ASSIGN_OR_RETURN(to.record, FromWire(from.record()));
      to.key = to.record->key;
      break;
    }
    case pb::Submit::kKey:
      to.key = KeyOf(from.key());
      break;
    case pb::Submit::SUBJECT_NOT_SET:
      return Invalid("Submit.subject: missing, record or key must be set");
  }
  if (to.key.request_id.empty()) return Invalid("Submit: the key's request_id is empty");
  to.router_blob = from.router_blob();
  to.have.assign(from.have().begin(), from.have().end());
  to.deadline_us = from.deadline_ms() * 1000;
  to.age_us = from.age_ms() * 1000;
  to.replay = from.replay();
  return to;
}

absl::Status Unreadable(StreamKind stream) {
  return Invalid("{} message: not a message of cluster.proto", StreamKindName(stream));
}

absl::Status Unknown(StreamKind stream) {
  return Invalid(
      "{} message: empty or of a kind that this build does not know; it speaks protocol "
      "{} to {}",
      StreamKindName(stream), kProtocolMin, kProtocolMax);
}

absl::StatusOr<UpMessage> DecodeRoute(const pb::RouteUp& up, PeerId peer) {
  // Of a bad Submit only its attempt is refused.
  if (!up.has_submit()) FATHOM_RETURN_IF_ERROR(CheckRanges(up));
  switch (up.message_case()) {
    case pb::RouteUp::kHello:
      return HelloOf(up.hello());
    case pb::RouteUp::kHeartbeat:
      return HeartbeatOf(up.heartbeat());
    case pb::RouteUp::kSubmit: {
      auto submitted = SubmitOf(up.submit(), peer);
      if (submitted.ok()) return *std::move(submitted);
      return SubmitUnreadable{
          AttemptId{up.submit().attempt()},
          WithDetail(submitted.status(), {.reason = "FIELD_OUT_OF_RANGE", .field = "record"})};
    }
    case pb::RouteUp::kSuspend:
      return Suspended{peer, AttemptId{up.suspend().attempt()}, KeyOf(up.suspend().key())};
    case pb::RouteUp::kClose: {
      const pb::Close& close = up.close();
      const FinishReason reason = FinishReasonFromWire(close.reason());
      if (reason == FinishReason::kNone) {
        return Invalid("Close.reason: {} ends no sequence", static_cast<int>(close.reason()));
      }
      return Closed{peer, KeyOf(close.key()), close.sequence(), close.length(), reason};
    }
    case pb::RouteUp::MESSAGE_NOT_SET:
      break;
  }
  return Unknown(StreamKind::kRoute);
}

absl::StatusOr<UpMessage> DecodeControl(pb::ControlUp& up) {
  FATHOM_RETURN_IF_ERROR(CheckRanges(up));
  switch (up.message_case()) {
    case pb::ControlUp::kHello:
      return HelloOf(up.hello());
    case pb::ControlUp::kHeartbeat:
      return HeartbeatOf(up.heartbeat());
    case pb::ControlUp::kExchange: {
      pb::GroupExchange& exchange = *up.mutable_exchange();
      return GroupExchange{EpochId{exchange.epoch()}, exchange.round(), exchange.rank(),
                           std::move(*exchange.mutable_bytes())};
    }
    case pb::ControlUp::kReady:
      return GroupReady{TermId{up.ready().term()}, EpochId{up.ready().epoch()}, up.ready().rank()};
    case pb::ControlUp::kFailed:
      return GroupFailed{TermId{up.failed().term()}, EpochId{up.failed().epoch()},
                         up.failed().rank(), up.failed().message()};
    case pb::ControlUp::MESSAGE_NOT_SET:
      break;
  }
  return Unknown(StreamKind::kControl);
}

absl::StatusOr<UpMessage> DecodeSteps(const pb::StepsUp& up) {
  FATHOM_RETURN_IF_ERROR(CheckRanges(up));
  switch (up.message_case()) {
    case pb::StepsUp::kHello:
      return StepsHello{TermId{up.hello().term()}, EpochId{up.hello().epoch()}, up.hello().rank(),
                        up.hello().process_id()};
    case pb::StepsUp::kResult: {
      FATHOM_ASSIGN_OR_RETURN(StepResult result, FromWire(up.result()));
      return result;
    }
    case pb::StepsUp::MESSAGE_NOT_SET:
      break;
  }
  return Unknown(StreamKind::kSteps);
}

// ---- Down ----

void Fill(const SchedulerHello& from, pb::Hello* to) {
  to->set_process_id(from.process_id);
  to->set_role(pb::ROLE_SCHEDULER);
  to->set_protocol_min(kProtocolMin);
  to->set_protocol_max(kProtocolMax);
  to->set_build(from.build);
  to->set_term_seen(from.term.value);
  pb::SchedulerHello* scheduler = to->mutable_scheduler();
  scheduler->set_leader(from.leader);
  scheduler->set_term(from.term.value);
  scheduler->set_model(from.facts.model);
  scheduler->set_config_digest(from.facts.config_digest);
  scheduler->set_fingerprint(from.facts.fingerprint);
  scheduler->set_context_tokens(from.facts.context_tokens);
  scheduler->set_block_tokens(from.facts.block_tokens);
  scheduler->set_pool_blocks(from.facts.pool_blocks);
  scheduler->set_groups(from.facts.groups);
  scheduler->set_vocab(from.facts.vocab);
  scheduler->set_device_kind(from.facts.device_kind);
  scheduler->set_dtype(from.facts.dtype);
}

void Fill(const Heartbeat& from, pb::Heartbeat* to) {
  to->set_term(from.term.value);
  to->set_hears_leader(from.hears_leader);
  to->set_phase(static_cast<pb::Phase>(from.phase));
  to->set_step(from.step.value);
  to->set_op(from.op);
  to->set_collective(from.collective);
  to->set_progress(from.progress);
}

void Fill(const AcceptedOut& from, pb::Accepted* to) {
  to->set_attempt(from.attempt.value);
  to->set_request_id(from.request_id);
  to->set_seed(from.seed);
  to->set_cached_tokens(from.cached_tokens);
  if (from.record) ToWire(*from.record, to->mutable_record());
  to->set_router_blob(from.router_blob);
}

void Fill(const RefusedOut& from, pb::Refused* to) {
  const ErrorDetail detail = DetailOf(from.status).value_or(ErrorDetail{});
  to->set_attempt(from.attempt.value);
  to->set_code(static_cast<int>(from.status.code()));
  to->set_reason(detail.reason);
  to->set_field(detail.field);
  to->set_message(std::string(Message(from.status)));
  to->set_retry_after_ms(detail.retry_after_ms);
}

void Fill(const Frame& from, pb::Frame* to) {
  to->set_attempt(from.attempt.value);
  to->set_sequence(from.sequence);
  to->set_position(from.position);
  to->mutable_ids()->Add(from.ids.begin(), from.ids.end());
  for (const TokenLogprob& logprob : from.logprobs) ToWire(logprob, to->add_logprobs());
  if (from.prompt_logprobs) ToWire(*from.prompt_logprobs, to->mutable_prompt_logprobs());
  to->set_fingerprint(from.fingerprint);
  if (!from.fingerprint.empty()) ToWire(from.kind, to->mutable_kind());
  if (!from.error.ok()) {
    pb::Error* error = to->mutable_error();
    error->set_code(static_cast<int>(from.error.code()));
    error->set_reason(DetailOf(from.error).value_or(ErrorDetail{}).reason);
    error->set_message(std::string(Message(from.error)));
  } else if (from.finish) {
    pb::Finish* finish = to->mutable_finish();
    finish->set_reason(static_cast<pb::FinishReason>(FinishReasonToWire(from.finish->reason)));
    finish->mutable_usage()->set_prompt_tokens(from.finish->usage.prompt_tokens);
    finish->mutable_usage()->set_completion_tokens(from.finish->usage.completion_tokens);
    finish->mutable_usage()->set_cached_tokens(from.finish->usage.cached_tokens);
    finish->mutable_timings()->set_queue_us(from.finish->timings.queue_us);
    finish->mutable_timings()->set_prefill_us(from.finish->timings.prefill_us);
    finish->mutable_timings()->set_decode_us(from.finish->timings.decode_us);
    finish->mutable_timings()->set_suspensions(from.finish->timings.suspensions);
  }
}

void Fill(const FrameBatch& from, pb::Frames* to) {
  to->set_term(from.term.value);
  to->mutable_frames()->Reserve(static_cast<int>(from.frames.size()));
  for (const Frame& frame : from.frames) Fill(frame, to->add_frames());
}

void Fill(const RouterStats& from, pb::Stats* to) {
  to->set_requests_running(from.requests_running);
  to->set_requests_waiting(from.requests_waiting);
  to->set_blocks_total(from.blocks_total);
  to->set_blocks_used(from.blocks_used);
  to->set_groups(from.groups);
  to->set_suspensions_total(from.suspensions_total);
  to->set_prompt_tokens_total(from.prompt_tokens_total);
  to->set_generation_tokens_total(from.generation_tokens_total);
  to->set_last_loss(from.last_loss);
  to->set_losses_alike(from.losses_alike);
}

void Fill(const GroupSeat& from, pb::Group* to) {
  to->set_group(from.group.value);
  to->set_term(from.term.value);
  to->set_epoch(from.epoch.value);
  to->set_tp(from.tp);
  to->set_pp(from.pp);
  to->set_rank(from.rank);
  for (const GroupPeer& peer : from.peers) {
    pb::Peer* there = to->add_peers();
    there->set_process_id(peer.process_id);
    there->set_host(peer.host);
  }
  to->set_blocks(from.blocks);
  pb::WorkerLimits* limits = to->mutable_limits();
  limits->set_context_tokens(from.limits.context_tokens);
  limits->set_block_tokens(from.limits.block_tokens);
  limits->set_pool_blocks(from.limits.pool_blocks);
  limits->set_slots(from.limits.slots);
  limits->set_step_tokens(from.limits.step_tokens);
  limits->set_vocab(from.limits.vocab);
  limits->set_mixed_step_tokens(from.limits.mixed_step_tokens);
}

[[noreturn]] void NoSuchMessage(StreamKind stream) {
  CheckFailed(__FILE__, __LINE__, "message",
              std::string("not a message of ") + StreamKindName(stream));
}

void FillRoute(const DownMessage& message, pb::RouteDown* to) {
  std::visit(Overloaded{
                 [&](const SchedulerHello& from) { Fill(from, to->mutable_hello()); },
                 [&](const Heartbeat& from) { Fill(from, to->mutable_heartbeat()); },
                 [&](const AcceptedOut& from) { Fill(from, to->mutable_accepted()); },
                 [&](const RefusedOut& from) { Fill(from, to->mutable_refused()); },
                 [&](const FrameBatch& from) { Fill(from, to->mutable_frames()); },
                 [&](const RouterStats& from) { Fill(from, to->mutable_stats()); },
                 [&](const Resign& from) { to->mutable_resign()->set_term(from.term.value); },
                 [](const auto&) { NoSuchMessage(StreamKind::kRoute); },
             },
             message);
}

void FillControl(const DownMessage& message, pb::ControlDown* to) {
  std::visit(Overloaded{
                 [&](const SchedulerHello& from) { Fill(from, to->mutable_hello()); },
                 [&](const Heartbeat& from) { Fill(from, to->mutable_heartbeat()); },
                 [&](const GroupSeat& from) { Fill(from, to->mutable_group()); },
                 [&](const GroupExchange& from) {
                   pb::GroupExchange* exchange = to->mutable_exchange();
                   exchange->set_epoch(from.epoch.value);
                   exchange->set_round(from.round);
                   exchange->set_rank(from.rank);
                   exchange->set_bytes(from.bytes);
                 },
                 [&](const Abort& from) {
                   to->mutable_abort()->set_term(from.term.value);
                   to->mutable_abort()->set_epoch(from.epoch.value);
                   to->mutable_abort()->set_reason(from.reason);
                 },
                 [&](const Resign& from) { to->mutable_resign()->set_term(from.term.value); },
                 [](const auto&) { NoSuchMessage(StreamKind::kControl); },
             },
             message);
}

}  // namespace

absl::StatusOr<UpMessage> Decode(StreamKind stream, PeerId peer, const void* data, size_t size) {
  google::protobuf::Arena arena;
  const auto parse = [&](auto* message) {
    return message->ParseFromArray(data, static_cast<int>(size));
  };
  switch (stream) {
    case StreamKind::kRoute: {
      auto* up = google::protobuf::Arena::CreateMessage<pb::RouteUp>(&arena);
      return parse(up) ? DecodeRoute(*up, peer) : Unreadable(stream);
    }
    case StreamKind::kControl: {
      auto* up = google::protobuf::Arena::CreateMessage<pb::ControlUp>(&arena);
      return parse(up) ? DecodeControl(*up) : Unreadable(stream);
    }
    case StreamKind::kSteps: {
      auto* up = google::protobuf::Arena::CreateMessage<pb::StepsUp>(&arena);
      return parse(up) ? DecodeSteps(*up) : Unreadable(stream);
    }
  }
  return Unreadable(stream);
}

const google::protobuf::MessageLite& Encode(StreamKind stream, const DownMessage& message,
                                            google::protobuf::Arena* arena) {
  switch (stream) {
    case StreamKind::kRoute: {
      auto* down = google::protobuf::Arena::CreateMessage<pb::RouteDown>(arena);
      FillRoute(message, down);
      return *down;
    }
    case StreamKind::kControl: {
      auto* down = google::protobuf::Arena::CreateMessage<pb::ControlDown>(arena);
      FillControl(message, down);
      return *down;
    }
    case StreamKind::kSteps:
      break;
  }
  auto* down = google::protobuf::Arena::CreateMessage<pb::StepsDown>(arena);
  const auto* plan = std::get_if<StepPlan>(&message);
  if (plan == nullptr) NoSuchMessage(stream);
  ToWire(*plan, down->mutable_plan());
  return *down;
}

}  // namespace fathom::scheduler
