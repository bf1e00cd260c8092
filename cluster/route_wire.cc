// Converts the messages of Route. Durations are in milliseconds in the messages and in microseconds
// in the structs.
#include <algorithm>
#include <string>
#include <utility>

#include "cluster/wire.h"
#include "cluster/wire_parts.h"
#include "cluster/wire_ranges.h"
#include "common/reason.h"

namespace fathom {

namespace pb = cluster::v1;

namespace {

// Checks a code of google.rpc.Code that a peer sent.
absl::StatusCode CodeFromWire(int32_t code) {
  return code > 0 && code <= 16 ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kInternal;
}

void FinishToWire(const FrameFinish& from, pb::Finish* to) {
  to->set_reason(FinishReasonToWire(from.reason));
  to->mutable_usage()->set_prompt_tokens(from.usage.prompt_tokens);
  to->mutable_usage()->set_completion_tokens(from.usage.completion_tokens);
  to->mutable_usage()->set_cached_tokens(from.usage.cached_tokens);
  to->mutable_usage()->set_drafted_tokens(from.usage.drafted_tokens);
  to->mutable_usage()->set_accepted_draft_tokens(from.usage.accepted_draft_tokens);
}

FrameFinish FinishFromWire(const pb::Finish& from) {
  return {
      FinishReasonFromWire(from.reason()),
      {from.usage().prompt_tokens(), from.usage().completion_tokens(), from.usage().cached_tokens(),
       from.usage().drafted_tokens(), from.usage().accepted_draft_tokens()}};
}

void FrameToWire(const Frame& from, pb::Frame* to) {
  to->set_attempt(from.attempt.value);
  to->set_sequence(from.sequence);
  to->set_position(from.position);
  CopyOut(from.ids, to->mutable_ids());
  ListToWire(from.logprobs, to->mutable_logprobs());
  if (from.prompt_logprobs) ToWire(*from.prompt_logprobs, to->mutable_prompt_logprobs());
  to->set_fingerprint(from.fingerprint);
  if (!from.fingerprint.empty()) ToWire(from.kind, to->mutable_kind());
  if (!from.error.ok()) {
    pb::Error* error = to->mutable_error();
    error->set_code(static_cast<int>(from.error.code()));
    error->set_reason(DetailOf(from.error).value_or(ErrorDetail{}).reason);
    error->set_message(std::string(Message(from.error)));
    if (from.timings) ToWire(*from.timings, error->mutable_timings());
  } else if (from.finish) {
    FinishToWire(*from.finish, to->mutable_finish());
    if (from.timings) ToWire(*from.timings, to->mutable_finish()->mutable_timings());
  }
}

absl::StatusOr<Frame> FrameFromWire(pb::Frame& from) {
  Frame to;
  to.attempt = AttemptId{from.attempt()};
  to.sequence = from.sequence();
  to.position = from.position();
  to.ids = CopyIn(from.ids());
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.logprobs(), &to.logprobs));
  if (from.has_prompt_logprobs()) {
    FATHOM_ASSIGN_OR_RETURN(to.prompt_logprobs, FromWire(from.prompt_logprobs()));
  }
  to.fingerprint = std::move(*from.mutable_fingerprint());
  to.kind = FromWire(from.kind());
  if (from.has_finish()) {
    to.finish = FinishFromWire(from.finish());
    to.timings = FromWire(from.finish().timings());
  }
  if (from.has_error()) {
    to.timings = FromWire(from.error().timings());
    to.error = WithDetail(MakeStatus(CodeFromWire(from.error().code()), from.error().message()),
                          {.reason = from.error().reason(), .field = {}});
  }
  return to;
}

absl::StatusOr<Submit> SubmitFromWire(pb::Submit& from) {
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from));
  FATHOM_RETURN_IF_ERROR(CheckRanges(from));
  Submit to;
  to.attempt = AttemptId{from.attempt()};
  switch (from.subject_case()) {
    case pb::Submit::kRecord: {
      FATHOM_ASSIGN_OR_RETURN(to.record, FromWire(from.record()));
      to.key = to.record->key;
      break;
    }
    case pb::Submit::kKey:
      to.key = FromWire(from.key());
      break;
    case pb::Submit::SUBJECT_NOT_SET:
      return Invalid("Submit.subject: missing, record or key must be set");
  }
  if (to.key.request_id.empty()) return Invalid("Submit: the key's request_id is empty");
  to.router_blob = std::move(*from.mutable_router_blob());
  to.have = CopyIn(from.have());
  to.deadline_us = from.deadline_ms() * 1000;
  to.replay = from.replay();
  to.age_us = from.age_ms() * 1000;
  to.traceparent = from.traceparent();
  return to;
}

absl::StatusOr<Close> CloseFromWire(const pb::Close& from) {
  const FinishReason reason = FinishReasonFromWire(from.reason());
  if (reason == FinishReason::kNone) {
    return Invalid("Close.reason: {} ends no sequence", static_cast<int>(from.reason()));
  }
  return Close{FromWire(from.key()), from.sequence(), from.length(), reason};
}

absl::StatusOr<Accepted> AcceptedFromWire(pb::Accepted& from) {
  Accepted to;
  to.attempt = AttemptId{from.attempt()};
  to.request_id = from.request_id();
  to.seed = from.seed();
  to.cached_tokens = from.cached_tokens();
  if (from.has_record()) {
    FATHOM_ASSIGN_OR_RETURN(to.record, FromWire(from.record()));
  }
  to.router_blob = std::move(*from.mutable_router_blob());
  return to;
}

Refused RefusedFromWire(const pb::Refused& from) {
  return {AttemptId{from.attempt()},
          WithDetail(MakeStatus(CodeFromWire(from.code()), from.message()),
                     {.reason = from.reason(),
                      .field = from.field(),
                      .retry_after_ms = from.retry_after_ms()})};
}

absl::StatusOr<Frames> FramesFromWire(pb::Frames& from) {
  Frames to{TermId{from.term()}, {}};
  to.frames.reserve(from.frames_size());
  for (pb::Frame& frame : *from.mutable_frames()) {
    FATHOM_ASSIGN_OR_RETURN(to.frames.emplace_back(), FrameFromWire(frame));
  }
  return to;
}

void ReportToWire(const RankReport& from, pb::RankReport* to) {
  to->set_group(from.group);
  to->set_rank(from.rank);
  to->set_process_id(from.process_id);
  to->set_host(from.host);
  to->set_phase(static_cast<pb::Phase>(from.phase));
  to->set_step(from.step.value);
  to->set_activity(static_cast<pb::Activity>(from.work.activity));
  to->set_layer(from.work.layer + 1);
  to->set_step_collectives(from.work.step_collectives);
  to->set_still_us(from.still_us);
  to->set_waits_for(from.waits_for + 1);
  to->set_address(from.address);
  to->set_card(from.card);
}

RankReport ReportFromWire(const pb::RankReport& from) {
  return {
      .group = from.group(),
      .rank = from.rank(),
      .process_id = from.process_id(),
      .host = from.host(),
      .phase = static_cast<Phase>(from.phase()),
      .step = StepId{from.step()},
      .work = {static_cast<Activity>(from.activity()), from.layer() - 1, from.step_collectives()},
      .still_us = from.still_us(),
      .waits_for = from.waits_for() - 1,
      .address = from.address(),
      .card = from.card()};
}

ClusterStats StatsFromWire(const pb::Stats& from) {
  ClusterStats to{.requests_running = from.requests_running(),
                  .requests_waiting = from.requests_waiting(),
                  .blocks_total = from.blocks_total(),
                  .blocks_used = from.blocks_used(),
                  .groups = from.groups(),
                  .suspensions_total = from.suspensions_total(),
                  .prompt_tokens_total = from.prompt_tokens_total(),
                  .generation_tokens_total = from.generation_tokens_total(),
                  .last_loss = from.last_loss(),
                  .losses_alike = from.losses_alike(),
                  .waiting = from.waiting()};
  for (const pb::RankReport& rank : from.ranks()) to.ranks.push_back(ReportFromWire(rank));
  to.apart = from.apart();
  const pb::WaitCounts& waiting = from.waiting_by();
  to.waiting_by = {waiting.slots(), waiting.blocks(), waiting.no_group(), waiting.other(),
                   waiting.tenant_running()};
  // An older scheduler sends none.
  const auto counts =
      std::min(to.step_tokens.counts.size(), static_cast<size_t>(from.step_tokens_size()));
  std::copy_n(from.step_tokens().begin(), counts, to.step_tokens.counts.begin());
  to.step_tokens.sum = from.step_tokens_sum();
  return to;
}

}  // namespace

// ---- Up ----

void ToWire(const Hello& from, pb::RouteUp* to) { ToWire(from, to->mutable_hello()); }
void ToWire(const Heartbeat& from, pb::RouteUp* to) { ToWire(from, to->mutable_heartbeat()); }

void ToWire(const Submit& from, pb::RouteUp* to) {
  pb::Submit* submit = to->mutable_submit();
  submit->Clear();
  submit->set_attempt(from.attempt.value);
  if (from.record) {
    ToWire(*from.record, submit->mutable_record());
  } else {
    ToWire(from.key, submit->mutable_key());
  }
  submit->set_router_blob(from.router_blob);
  CopyOut(from.have, submit->mutable_have());
  // A deadline of less than a millisecond becomes one, because 0 means none.
  submit->set_deadline_ms(from.deadline_us == 0 ? 0
                                                : std::max<int64_t>(1, from.deadline_us / 1000));
  submit->set_replay(from.replay);
  submit->set_age_ms(from.age_us / 1000);
  submit->set_traceparent(from.traceparent);
}

void ToWire(const Suspend& from, pb::RouteUp* to) {
  to->mutable_suspend()->set_attempt(from.attempt.value);
  ToWire(from.key, to->mutable_suspend()->mutable_key());
}

void ToWire(const Close& from, pb::RouteUp* to) {
  pb::Close* close = to->mutable_close();
  ToWire(from.key, close->mutable_key());
  close->set_sequence(from.sequence);
  close->set_length(from.length);
  close->set_reason(FinishReasonToWire(from.reason));
}

void ToWire(const ExplainAsk& from, pb::RouteUp* to) {
  to->mutable_explain()->set_ask(from.ask);
  ToWire(from.key, to->mutable_explain()->mutable_key());
}

absl::StatusOr<RouteUpMessage> FromWire(pb::RouteUp&& from) {
  // The ranges of a Submit are checked later, because a bad Submit refuses only its own attempt.
  if (!from.has_submit()) FATHOM_RETURN_IF_ERROR(CheckRanges(from));
  switch (from.message_case()) {
    case pb::RouteUp::kHello: {
      FATHOM_ASSIGN_OR_RETURN(Hello hello, FromWire(from.hello()));
      return hello;
    }
    case pb::RouteUp::kHeartbeat:
      return FromWire(from.heartbeat());
    case pb::RouteUp::kSubmit: {
      auto submit = SubmitFromWire(*from.mutable_submit());
      if (submit.ok()) return *std::move(submit);
      return SubmitUnreadable{AttemptId{from.submit().attempt()},
                              WithReason(submit.status(), Reason::kOutOfRange, "record")};
    }
    case pb::RouteUp::kSuspend:
      return Suspend{AttemptId{from.suspend().attempt()}, FromWire(from.suspend().key())};
    case pb::RouteUp::kClose: {
      FATHOM_ASSIGN_OR_RETURN(Close close, CloseFromWire(from.close()));
      return close;
    }
    case pb::RouteUp::kExplain:
      return ExplainAsk{from.explain().ask(), FromWire(from.explain().key())};
    case pb::RouteUp::MESSAGE_NOT_SET:
      break;
  }
  return UnknownMessage("Route");
}

// ---- Down ----

void ToWire(const Hello& from, pb::RouteDown* to) { ToWire(from, to->mutable_hello()); }
void ToWire(const Heartbeat& from, pb::RouteDown* to) { ToWire(from, to->mutable_heartbeat()); }

void ToWire(const Accepted& from, pb::RouteDown* to) {
  pb::Accepted* accepted = to->mutable_accepted();
  accepted->Clear();
  accepted->set_attempt(from.attempt.value);
  accepted->set_request_id(from.request_id);
  accepted->set_seed(from.seed);
  accepted->set_cached_tokens(from.cached_tokens);
  if (from.record) ToWire(*from.record, accepted->mutable_record());
  accepted->set_router_blob(from.router_blob);
}

void ToWire(const Refused& from, pb::RouteDown* to) {
  const ErrorDetail detail = DetailOf(from.status).value_or(ErrorDetail{});
  pb::Refused* refused = to->mutable_refused();
  refused->set_attempt(from.attempt.value);
  refused->set_code(static_cast<int>(from.status.code()));
  refused->set_reason(detail.reason);
  refused->set_field(detail.field);
  refused->set_message(std::string(Message(from.status)));
  refused->set_retry_after_ms(detail.retry_after_ms);
}

void ToWire(const Frames& from, pb::RouteDown* to) {
  pb::Frames* frames = to->mutable_frames();
  frames->Clear();
  frames->set_term(from.term.value);
  frames->mutable_frames()->Reserve(static_cast<int>(from.frames.size()));
  for (const Frame& frame : from.frames) FrameToWire(frame, frames->add_frames());
}

void ToWire(const ClusterStats& from, pb::RouteDown* to) {
  pb::Stats* stats = to->mutable_stats();
  stats->set_requests_running(from.requests_running);
  stats->set_requests_waiting(from.requests_waiting);
  stats->set_blocks_total(from.blocks_total);
  stats->set_blocks_used(from.blocks_used);
  stats->set_groups(from.groups);
  stats->set_suspensions_total(from.suspensions_total);
  stats->set_prompt_tokens_total(from.prompt_tokens_total);
  stats->set_generation_tokens_total(from.generation_tokens_total);
  stats->set_last_loss(from.last_loss);
  stats->set_losses_alike(from.losses_alike);
  stats->set_waiting(from.waiting);
  stats->set_apart(from.apart);
  stats->clear_ranks();
  for (const RankReport& rank : from.ranks) ReportToWire(rank, stats->add_ranks());
  pb::WaitCounts* waiting = stats->mutable_waiting_by();
  const auto count = [&](WaitLimit limit) { return from.waiting_by[static_cast<size_t>(limit)]; };
  waiting->set_slots(count(WaitLimit::kSlots));
  waiting->set_blocks(count(WaitLimit::kBlocks));
  waiting->set_no_group(count(WaitLimit::kNoGroup));
  waiting->set_other(count(WaitLimit::kOther));
  waiting->set_tenant_running(count(WaitLimit::kTenantRunning));
  const StepTokens& steps = from.step_tokens;
  stats->mutable_step_tokens()->Assign(steps.counts.begin(), steps.counts.end());
  stats->set_step_tokens_sum(steps.sum);
}

void ToWire(const Resign& from, pb::RouteDown* to) {
  to->mutable_resign()->set_term(from.term.value);
}

void ToWire(const Explained& from, pb::RouteDown* to) {
  pb::Explained* explained = to->mutable_explained();
  explained->Clear();
  explained->set_ask(from.ask);
  explained->set_found(from.found);
  if (from.found) ToWire(from.timings, explained->mutable_timings());
  explained->set_prompt_tokens(from.prompt_tokens);
  explained->set_generated_tokens(from.generated_tokens);
  explained->set_max_tokens(from.max_tokens);
}

absl::StatusOr<RouteDownMessage> FromWire(pb::RouteDown&& from) {
  FATHOM_RETURN_IF_ERROR(CheckRanges(from));
  switch (from.message_case()) {
    case pb::RouteDown::kHello: {
      FATHOM_ASSIGN_OR_RETURN(Hello hello, FromWire(from.hello()));
      return hello;
    }
    case pb::RouteDown::kHeartbeat:
      return FromWire(from.heartbeat());
    case pb::RouteDown::kAccepted: {
      FATHOM_ASSIGN_OR_RETURN(Accepted accepted, AcceptedFromWire(*from.mutable_accepted()));
      return accepted;
    }
    case pb::RouteDown::kRefused:
      return RefusedFromWire(from.refused());
    case pb::RouteDown::kFrames: {
      FATHOM_ASSIGN_OR_RETURN(Frames frames, FramesFromWire(*from.mutable_frames()));
      return frames;
    }
    case pb::RouteDown::kStats:
      return StatsFromWire(from.stats());
    case pb::RouteDown::kResign:
      return Resign{TermId{from.resign().term()}};
    case pb::RouteDown::kExplained: {
      const pb::Explained& explained = from.explained();
      return Explained{explained.ask(),
                       explained.found(),
                       explained.found() ? FromWire(explained.timings()) : RequestTimings{},
                       explained.prompt_tokens(),
                       explained.generated_tokens(),
                       explained.max_tokens()};
    }
    case pb::RouteDown::MESSAGE_NOT_SET:
      break;
  }
  return std::monostate{};
}

}  // namespace fathom
