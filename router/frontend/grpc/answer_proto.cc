#include "router/frontend/grpc/answer_proto.h"

#include <algorithm>

namespace fathom::router {
namespace {

void Fill(const SamplingParams& from, v1::Sampling* to) {
  SetSamplingFields(ToOptions(from), to);
  for (const auto& [id, bias] : from.logit_bias) {
    // The model's suppressed tokens are left out: a client may send back the parameters that it is
    // told here, and admission would refuse a bias of kSuppressedBias.
    if (bias > kSuppressedBias) (*to->mutable_logit_bias())[id] = bias;
  }
}

void Fill(const TokenLogprob& from, v1::TokenLogprob* to) {
  to->set_id(from.id);
  to->set_logprob(from.logprob);
  to->mutable_top_ids()->Add(from.top_ids.begin(), from.top_ids.end());
  to->mutable_top_logprobs()->Add(from.top_logprobs.begin(), from.top_logprobs.end());
}

void Fill(const StartedEvent& from, v1::Started* to) {
  to->set_request_id(from.request_id);
  to->set_seed(from.seed);
  to->set_prompt_tokens(from.prompt_tokens);
  to->set_cached_tokens(from.cached_tokens);
  to->set_fingerprint(from.fingerprint);
  to->set_model(from.model);
  Fill(from.request.sampling, to->mutable_sampling());
  to->mutable_sampling()->set_seed(from.seed);
  to->mutable_sampling()->set_n(from.request.sequences);
  v1::Stop& stop = *to->mutable_stop();
  stop.set_max_tokens(from.request.stop.max_tokens);
  stop.set_min_tokens(from.request.stop.min_tokens);
  for (const std::string& string : from.stop_strings) stop.add_strings(string);
  stop.mutable_token_ids()->Add(from.request.stop.stop_token_ids.begin(),
                                from.request.stop.stop_token_ids.end());
  stop.set_ignore_eos(from.request.stop.end_token_ids.empty());
  stop.set_include_stop(from.include_stop);
}

void Fill(const TokensEvent& from, v1::Tokens* to) {
  to->set_sequence(from.sequence);
  to->set_position(from.position);
  to->mutable_ids()->Add(from.ids.begin(), from.ids.end());
  to->set_text(from.text);
  to->set_reasoning(from.reasoning);
  for (const TokenLogprob& logprob : from.logprobs) Fill(logprob, to->add_logprobs());
  for (const ToolCallDelta& call : from.calls) {
    v1::ToolCallDelta& added = *to->add_tool_calls();
    added.set_index(call.index);
    added.set_id(call.id);
    added.set_name(call.name);
    added.set_arguments(call.arguments);
    added.set_end(call.end);
    added.set_whole(call.whole);
    added.set_text_before(static_cast<int32_t>(call.text_before));
  }
}

v1::FinishReason ReasonToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEndToken:
    case FinishReason::kStopToken:
    case FinishReason::kStopString:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kDeadline:
      return v1::FINISH_REASON_DEADLINE;
    case FinishReason::kNone:
    case FinishReason::kError:
      return v1::FINISH_REASON_UNSPECIFIED;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void Fill(const FinishEvent& from, v1::Finish* to) {
  to->set_sequence(from.sequence);
  to->set_position(from.position);
  to->set_reason(ReasonToProto(from.reason));
  if (from.stop_token) to->set_stop_token_id(*from.stop_token);
  if (from.stop_string) to->set_stop_string(*from.stop_string);
  to->set_calls_tools(from.calls_tools);
  to->mutable_usage()->set_prompt_tokens(from.usage.prompt_tokens);
  to->mutable_usage()->set_completion_tokens(from.usage.completion_tokens);
  to->mutable_usage()->set_cached_tokens(from.usage.cached_tokens);
  to->mutable_usage()->set_drafted_tokens(from.usage.drafted_tokens);
  to->mutable_usage()->set_accepted_draft_tokens(from.usage.accepted_draft_tokens);
  to->mutable_timings()->set_queue_us(from.timings.queue_us);
  to->mutable_timings()->set_prefill_us(from.timings.prefill_us);
  to->mutable_timings()->set_decode_us(from.timings.decode_us);
  to->mutable_timings()->set_suspensions(from.timings.suspensions);
  to->mutable_timings()->set_total_us(from.total_us);
  for (const FingerprintSpan& span : from.fingerprints) {
    v1::FingerprintSpan& added = *to->add_fingerprints();
    added.set_position(span.position);
    added.set_fingerprint(span.fingerprint);
    added.set_model_digest(span.kind.model_digest);
    added.set_dtype(span.kind.dtype);
    added.set_device(span.kind.device_kind);
    added.set_tensor_parallel_size(span.kind.tp);
    added.set_recipe(span.kind.recipe);
  }
}

}  // namespace

v1::GenerateResponse ToProto(const ClientEvent& event) {
  v1::GenerateResponse response;
  if (const auto* started = std::get_if<StartedEvent>(&event)) {
    Fill(*started, response.mutable_started());
  } else if (const auto* logprobs = std::get_if<PromptLogprobs>(&event)) {
    response.mutable_prompt_logprobs()->set_start(logprobs->start);
    for (const TokenLogprob& logprob : logprobs->logprobs) {
      Fill(logprob, response.mutable_prompt_logprobs()->add_logprobs());
    }
  } else if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
    Fill(*tokens, response.mutable_tokens());
  } else if (const auto* finish = std::get_if<FinishEvent>(&event)) {
    Fill(*finish, response.mutable_finish());
  } else {
    response.mutable_keep_alive();
  }
  return response;
}

v1::Started ToProto(const StartedEvent& event) {
  v1::Started started;
  Fill(event, &started);
  return started;
}

v1::TokenizeResponse ToProto(const TokenizeAnswer& answer) {
  v1::TokenizeResponse response;
  response.mutable_ids()->Add(answer.ids.begin(), answer.ids.end());
  if (answer.rendered) response.set_rendered(*answer.rendered);
  return response;
}

v1::DetokenizeResponse ToProto(const std::string& text) {
  v1::DetokenizeResponse response;
  response.set_text(text);
  return response;
}

v1::Model ToProto(const ModelAnswer& answer) {
  v1::Model model;
  model.set_name(answer.name);
  model.set_fingerprint(answer.fingerprint);
  model.set_device(answer.device);
  model.set_dtype(answer.dtype);
  model.set_context_tokens(answer.context_tokens);
  model.set_pool_tokens(static_cast<int32_t>(std::min<int64_t>(answer.pool_tokens, INT32_MAX)));
  model.set_vocab(answer.vocab);
  model.set_has_tokenizer(answer.has_tokenizer);
  model.set_has_chat_template(answer.has_chat_template);
  Fill(answer.default_sampling, model.mutable_default_sampling());
  model.mutable_end_token_ids()->Add(answer.end_token_ids.begin(), answer.end_token_ids.end());
  return model;
}

v1::Limits ToProto(const std::vector<FieldLimit>& limits) {
  v1::Limits response;
  for (const FieldLimit& limit : limits) {
    v1::FieldLimit* row = response.add_fields();
    row->set_field(std::string(limit.path));
    row->set_min(limit.min);
    row->set_max(limit.max);
    row->set_min_excluded(limit.min_excluded);
    row->set_fallback(std::string(limit.fallback));
    row->set_unit(std::string(limit.unit));
  }
  return response;
}

namespace {

void FillRank(const RankReport& from, v1::RankStatus* to) {
  to->set_group(from.group);
  to->set_rank(from.rank);
  to->set_process_id(from.process_id);
  to->set_host(from.host);
  to->set_phase(NameOf(from.phase));
  to->set_step(from.step.value);
  to->set_activity(NameOf(from.work.activity));
  if (from.work.layer >= 0) to->set_layer(from.work.layer);
  to->set_step_collectives(from.work.step_collectives);
  to->set_still_ms(from.still_us / 1000);
  if (from.waits_for >= 0) to->set_waits_for(from.waits_for);
  to->set_doing(DescribeWork(from));
  to->set_address(from.address);
  to->set_card(from.card);
}

void FillStart(const GroupStart& from, v1::GroupStart* to) {
  to->set_group(from.group);
  to->set_epoch(from.epoch.value);
  to->set_total_us(from.us);
  if (!from.ranks.empty()) to->set_slowest_rank(from.ranks[SlowestOf(from)].rank);
  for (const RankStart& rank : from.ranks) {
    v1::RankStart* there = to->add_ranks();
    there->set_rank(rank.rank);
    there->set_process_id(rank.process_id);
    there->set_host(rank.host);
    for (const StartMark& mark : rank.marks) {
      v1::StartMark* part = there->add_marks();
      part->set_phase(NameOf(mark.phase));
      part->set_at_us(mark.at_us);
      part->set_bytes(mark.bytes);
    }
  }
}

}  // namespace

v1::ClusterStatus ToProto(const StatusAnswer& answer) {
  const Sessions::View& view = answer.view;
  v1::ClusterStatus status;
  status.set_ready(answer.ready.ok());
  if (!answer.ready.ok()) status.set_reason(std::string(Message(answer.ready)));
  status.set_model(answer.model);
  status.set_build(answer.build);
  status.set_sessions(static_cast<int32_t>(view.open));
  status.set_requests_running(view.stats.requests_running);
  status.set_requests_waiting(view.stats.requests_waiting);
  status.set_blocks_total(view.stats.blocks_total);
  status.set_blocks_used(view.stats.blocks_used);
  status.set_last_loss(view.stats.last_loss);
  status.set_losses_alike(view.stats.losses_alike);
  status.set_waiting(view.stats.waiting);
  status.set_apart(view.stats.apart);
  for (const RankReport& rank : view.stats.ranks) FillRank(rank, status.add_ranks());
  if (!view.facts) return status;
  status.set_term(view.term.value);
  status.set_groups(view.facts->groups);
  status.set_fingerprint(view.facts->fingerprint);
  status.set_context_tokens(view.facts->context_tokens);
  for (const GroupStart& start : view.facts->starts) FillStart(start, status.add_starts());
  return status;
}

}  // namespace fathom::router
