#include "client/convert.h"

#include <grpcpp/support/status.h>

#include <algorithm>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "inference.pb.h"

namespace fathom::client {
namespace {

template <class T, class Setter>
void SetIf(const std::optional<T>& value, Setter set) {
  if (value) set(*value);
}

void ToWire(const Sampling& from, v1::Sampling* to) {
  SetSamplingFields(from, to);
  for (const auto& [id, bias] : from.logit_bias) (*to->mutable_logit_bias())[id] = bias;
  SetIf(from.seed, [to](uint64_t v) { to->set_seed(v); });
  SetIf(from.n, [to](int32_t v) { to->set_n(v); });
}

void ToWire(const Stop& from, v1::Stop* to) {
  SetIf(from.max_tokens, [to](int32_t v) { to->set_max_tokens(v); });
  SetIf(from.min_tokens, [to](int32_t v) { to->set_min_tokens(v); });
  for (const std::string& text : from.strings) to->add_strings(text);
  to->mutable_token_ids()->Add(from.token_ids.begin(), from.token_ids.end());
  to->set_ignore_eos(from.ignore_eos);
  to->set_include_stop(from.include_stop);
}

void ToWire(const Output& from, v1::Output* to) {
  SetIf(from.logprobs, [to](int32_t v) { to->set_logprobs(v); });
  SetIf(from.prompt_logprobs, [to](int32_t v) { to->set_prompt_logprobs(v); });
  SetIf(from.text, [to](bool v) { to->set_text(v); });
  to->set_keep_special(from.keep_special);
}

template <class Message>
void OptionsToWire(const RequestOptions& from, Message* to) {
  to->set_request_id(from.request_id);
  to->set_idempotency_key(from.idempotency_key);
  to->set_model(from.model);
  ToWire(from.sampling, to->mutable_sampling());
  ToWire(from.stop, to->mutable_stop());
  ToWire(from.output, to->mutable_output());
  to->set_deadline_ms(from.deadline_ms);
  SetIf(from.priority, [to](int32_t v) { to->set_priority(v); });
  if (from.cache_enabled) to->mutable_cache()->set_enabled(*from.cache_enabled);
  if (!from.cache_salt.empty()) to->mutable_cache()->set_salt(from.cache_salt);
}

template <class Message>
void ConversationToWire(const Conversation& from, Message* to) {
  for (const ChatMessage& message : from.messages) {
    auto* out = to->add_messages();
    out->set_role(message.role);
    SetIf(message.content, [out](const std::string& v) { out->set_content(v); });
    for (const ToolCall& call : message.tool_calls) {
      auto* wire = out->add_tool_calls();
      wire->set_id(call.id);
      wire->set_name(call.name);
      wire->set_arguments_json(call.arguments_json);
    }
    out->mutable_content_parts()->Add(message.content_parts.begin(), message.content_parts.end());
    out->set_tool_call_id(message.tool_call_id);
    SetIf(message.reasoning, [out](const std::string& v) { out->set_reasoning(v); });
    out->set_name(message.name);
  }
  to->set_tools_json(from.tools_json);
  SetIf(from.enable_thinking, [to](bool v) { to->set_enable_thinking(v); });
  SetIf(from.add_generation_prompt, [to](bool v) { to->set_add_generation_prompt(v); });
  to->set_allow_special_in_content(from.allow_special_in_content);
  to->set_chat_template_kwargs_json(from.chat_template_kwargs_json);
  to->set_continue_final_message(from.continue_final_message);
}

Sampling FromWire(const v1::Sampling& from) {
  Sampling to{SamplingFieldsOf(from), {}, {}, {}};
  to.logit_bias.insert(from.logit_bias().begin(), from.logit_bias().end());
  if (from.has_seed()) to.seed = from.seed();
  if (from.has_n()) to.n = from.n();
  return to;
}

Stop FromWire(const v1::Stop& from) {
  Stop to;
  if (from.has_max_tokens()) to.max_tokens = from.max_tokens();
  if (from.has_min_tokens()) to.min_tokens = from.min_tokens();
  to.strings.assign(from.strings().begin(), from.strings().end());
  to.token_ids.assign(from.token_ids().begin(), from.token_ids().end());
  to.ignore_eos = from.ignore_eos();
  to.include_stop = from.include_stop();
  return to;
}

Started FromWire(const v1::Started& from) {
  Started to;
  to.request_id = from.request_id();
  to.seed = from.seed();
  to.prompt_tokens = from.prompt_tokens();
  to.cached_tokens = from.cached_tokens();
  to.fingerprint = from.fingerprint();
  to.model = from.model();
  to.warning = from.warning();
  to.sampling = FromWire(from.sampling());
  to.stop = FromWire(from.stop());
  return to;
}

template <class Repeated>
std::vector<TokenLogprob> LogprobsFromWire(const Repeated& from) {
  std::vector<TokenLogprob> to;
  to.reserve(from.size());
  for (const auto& one : from) {
    to.push_back({.id = one.id(),
                  .logprob = one.logprob(),
                  .top_ids = {one.top_ids().begin(), one.top_ids().end()},
                  .top_logprobs = {one.top_logprobs().begin(), one.top_logprobs().end()}});
  }
  return to;
}

Tokens FromWire(v1::Tokens& from) {
  Tokens to;
  to.sequence = from.sequence();
  to.position = from.position();
  to.ids.assign(from.ids().begin(), from.ids().end());
  to.text = std::move(*from.mutable_text());
  to.reasoning = std::move(*from.mutable_reasoning());
  to.logprobs = LogprobsFromWire(from.logprobs());
  for (v1::ToolCallDelta& call : *from.mutable_tool_calls()) {
    to.tool_calls.push_back({call.index(), std::move(*call.mutable_id()),
                             std::move(*call.mutable_name()), std::move(*call.mutable_arguments()),
                             call.end(), call.whole()});
  }
  return to;
}

absl::StatusOr<Finish> FromWire(const v1::Finish& from) {
  Finish to;
  to.sequence = from.sequence();
  switch (from.reason()) {
    case v1::FINISH_REASON_STOP:
      to.kind = FinishKind::kStop;
      break;
    case v1::FINISH_REASON_LENGTH:
      to.kind = FinishKind::kLength;
      break;
    case v1::FINISH_REASON_DEADLINE:
      to.kind = FinishKind::kDeadline;
      break;
    default:
      return DataLoss("finish.reason {} is not known to this client; update it",
                      static_cast<int>(from.reason()));
  }
  if (from.has_stop_token_id()) to.stop = from.stop_token_id();
  if (from.has_stop_string()) to.stop = from.stop_string();
  to.usage = {from.usage().prompt_tokens(), from.usage().completion_tokens(),
              from.usage().cached_tokens(), from.usage().drafted_tokens(),
              from.usage().accepted_draft_tokens()};
  to.timings = {from.timings().queue_us(), from.timings().prefill_us(), from.timings().decode_us(),
                from.timings().total_us(), from.timings().suspensions()};
  to.position = from.position();
  to.calls_tools = from.calls_tools();
  for (const auto& span : from.fingerprints()) {
    to.fingerprints.push_back({span.position(),
                               span.fingerprint(),
                               {span.model_digest(), span.dtype(), span.device(),
                                span.tensor_parallel_size(), span.recipe()}});
  }
  return to;
}

}  // namespace

void ToWire(const GenerateRequest& from, v1::GenerateRequest* to) {
  OptionsToWire(from, to);
  if (const auto* text = std::get_if<std::string>(&from.prompt)) {
    to->set_text(*text);
  } else {
    const auto& ids = std::get<std::vector<TokenId>>(from.prompt);
    to->mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  }
}

void ToWire(const ChatRequest& from, v1::ChatRequest* to) {
  OptionsToWire(from, to);
  ConversationToWire(from.conversation, to);
  if (!from.conversation.tool_calls) to->mutable_tool_choice()->set_kind(v1::ToolChoice::NONE);
}

void ToWire(const Conversation& from, v1::ChatMessages* to) { ConversationToWire(from, to); }

absl::StatusOr<std::optional<Event>> FromWire(v1::GenerateResponse& from) {
  switch (from.event_case()) {
    case v1::GenerateResponse::kStarted:
      return std::optional<Event>(FromWire(from.started()));
    case v1::GenerateResponse::kPromptLogprobs:
      return std::optional<Event>(
          PromptLogprobs{.start = from.prompt_logprobs().start(),
                         .logprobs = LogprobsFromWire(from.prompt_logprobs().logprobs())});
    case v1::GenerateResponse::kTokens:
      return std::optional<Event>(FromWire(*from.mutable_tokens()));
    case v1::GenerateResponse::kFinish: {
      FATHOM_ASSIGN_OR_RETURN(Finish finish, FromWire(from.finish()));
      return std::optional<Event>(std::move(finish));
    }
    case v1::GenerateResponse::kKeepAlive:
      return std::optional<Event>();
    case v1::GenerateResponse::EVENT_NOT_SET:
      break;
  }
  return DataLoss("a frame of a kind that this client does not know; update it");
}

Model FromWire(const v1::Model& from) {
  Model to;
  to.name = from.name();
  to.fingerprint = from.fingerprint();
  to.context_tokens = from.context_tokens();
  to.pool_tokens = from.pool_tokens();
  to.vocab = from.vocab();
  to.has_tokenizer = from.has_tokenizer();
  to.has_chat_template = from.has_chat_template();
  to.default_sampling = FromWire(from.default_sampling());
  to.end_token_ids.assign(from.end_token_ids().begin(), from.end_token_ids().end());
  to.device = from.device();
  to.dtype = from.dtype();
  return to;
}

namespace {

RankStatus RankFromWire(const v1::RankStatus& from) {
  RankStatus to;
  to.group = from.group();
  to.rank = from.rank();
  to.process_id = from.process_id();
  to.host = from.host();
  to.phase = from.phase();
  to.step = from.step();
  to.activity = from.activity();
  if (from.has_layer()) to.layer = from.layer();
  to.step_collectives = from.step_collectives();
  to.still_ms = from.still_ms();
  if (from.has_waits_for()) to.waits_for = from.waits_for();
  to.doing = from.doing();
  to.address = from.address();
  to.card = from.card();
  return to;
}

GroupTimeline TimelineFromWire(const v1::GroupStart& from) {
  GroupTimeline to{from.group(), from.epoch(), from.total_us(), from.slowest_rank(), {}};
  for (const v1::RankStart& rank : from.ranks()) {
    RankTimeline& there =
        to.ranks.emplace_back(RankTimeline{rank.rank(), rank.process_id(), rank.host(), {}});
    for (const v1::StartMark& mark : rank.marks()) {
      there.parts.push_back({mark.phase(), mark.at_us(), mark.bytes()});
    }
  }
  return to;
}

}  // namespace

ClusterStatus FromWire(const v1::ClusterStatus& from) {
  ClusterStatus to;
  to.ready = from.ready();
  to.reason = from.reason();
  to.model = from.model();
  to.build = from.build();
  to.term = from.term();
  to.groups = from.groups();
  to.requests_running = from.requests_running();
  to.requests_waiting = from.requests_waiting();
  to.blocks_total = from.blocks_total();
  to.blocks_used = from.blocks_used();
  to.sessions = from.sessions();
  to.fingerprint = from.fingerprint();
  to.context_tokens = from.context_tokens();
  to.last_loss = from.last_loss();
  to.losses_alike = from.losses_alike();
  to.waiting = from.waiting();
  to.apart = from.apart();
  for (const v1::RankStatus& rank : from.ranks()) to.ranks.push_back(RankFromWire(rank));
  for (const v1::GroupStart& start : from.starts()) to.starts.push_back(TimelineFromWire(start));
  return to;
}

namespace {

std::vector<TimePart> PartsFromWire(const google::protobuf::RepeatedPtrField<v1::TimePart>& from) {
  std::vector<TimePart> to;
  for (const v1::TimePart& part : from) to.push_back({part.name(), part.us()});
  return to;
}

}  // namespace

Explanation FromWire(const v1::Explanation& from) {
  Explanation to;
  to.request_id = from.request_id();
  to.model = from.model();
  to.outcome = from.outcome();
  to.phase = from.phase();
  to.reason = from.reason();
  to.message = from.message();
  to.whole_us = from.whole_us();
  to.parts = PartsFromWire(from.parts());
  to.scheduler_known = from.scheduler_known();
  to.queue_behind = PartsFromWire(from.queue_behind());
  to.suspended_behind = PartsFromWire(from.suspended_behind());
  for (const v1::SlotStay& stay : from.stays()) {
    to.stays.push_back(
        {stay.group(), stay.epoch(), stay.at_us(), stay.us(), stay.end(), stay.prefill_us()});
  }
  to.stays_total = from.stays_total();
  for (const v1::PromptChunk& chunk : from.chunks()) {
    to.chunks.push_back({chunk.at_us(), chunk.us(), chunk.tokens(), chunk.chunks()});
  }
  to.chunks_total = from.chunks_total();
  for (const v1::TokenGap& gap : from.gaps()) to.gaps.push_back({gap.us(), gap.position()});
  if (from.has_first_token_us()) to.first_token_us = from.first_token_us();
  if (from.has_last_token_us()) to.last_token_us = from.last_token_us();
  if (from.has_first_token_seen_us()) to.first_token_seen_us = from.first_token_seen_us();
  to.suspensions = from.suspensions();
  to.preemptions = from.preemptions();
  to.submits = from.submits();
  to.usage = {from.usage().prompt_tokens(), from.usage().completion_tokens(),
              from.usage().cached_tokens(), from.usage().drafted_tokens(),
              from.usage().accepted_draft_tokens()};
  to.max_tokens = from.max_tokens();
  to.sequences = from.sequences();
  if (from.has_ended_ago_us()) to.ended_ago_us = from.ended_ago_us();
  return to;
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result =
      MakeStatus(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status rpc;
  if (!rpc.ParseFromString(status.error_details())) return result;
  ErrorDetail detail;
  for (const auto& any : rpc.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::RetryInfo retry;
    if (any.Is<google::rpc::ErrorInfo>() && any.UnpackTo(&info)) {
      detail.reason = info.reason();
    } else if (any.Is<google::rpc::BadRequest>() && any.UnpackTo(&bad)) {
      if (bad.field_violations_size() > 0) detail.field = bad.field_violations(0).field();
    } else if (any.Is<google::rpc::RetryInfo>() && any.UnpackTo(&retry)) {
      detail.retry_after_ms =
          retry.retry_delay().seconds() * 1000 + retry.retry_delay().nanos() / 1'000'000;
    }
  }
  if (detail.reason.empty() && detail.field.empty() && detail.retry_after_ms == 0) return result;
  return WithDetail(std::move(result), detail);
}

}  // namespace fathom::client
