#include "router/frontend/grpc/request_proto.h"

#include <algorithm>
#include <utility>

namespace fathom::router {
namespace {

std::optional<PublicGuided> GuidedOf(const v1::Guided& from) {
  using enum GrammarKind;
  PublicGuided to;
  to.spec.closed = !from.open();
  switch (from.guide_case()) {
    case v1::Guided::kJsonObject:
      if (!from.json_object()) return std::nullopt;
      to.spec.kind = kJsonObject;
      to.field = "guided.json_object";
      break;
    case v1::Guided::kJsonSchema:
      to.spec.kind = kJsonSchema;
      to.spec.text = from.json_schema();
      to.field = "guided.json_schema";
      break;
    case v1::Guided::kRegex:
      to.spec.kind = kRegex;
      to.spec.text = from.regex();
      to.field = "guided.regex";
      break;
    case v1::Guided::kChoice:
      to.spec.kind = kChoice;
      to.spec.choices.assign(from.choice().texts().begin(), from.choice().texts().end());
      to.field = "guided.choice";
      break;
    case v1::Guided::kGrammar:
      to.spec.kind = kEbnf;
      to.spec.text = from.grammar();
      to.field = "guided.grammar";
      break;
    case v1::Guided::kStructuralTag:
      to.spec.kind = kStructuralTag;
      to.spec.text = from.structural_tag();
      to.field = "guided.structural_tag";
      break;
    case v1::Guided::GUIDE_NOT_SET:
      return std::nullopt;
  }
  return to;
}

template <class From>
PublicRequest ParamsOf(const From& from) {
  PublicRequest to;
  to.request_id = from.request_id();
  to.idempotency_key = from.idempotency_key();
  to.model = from.model();
  to.deadline_ms = from.deadline_ms();
  if (from.has_priority()) to.priority = from.priority();
  if (from.cache().has_enabled()) to.cache.enabled = from.cache().enabled();
  to.cache.salt = from.cache().salt();
  if (from.has_guided()) to.guided = GuidedOf(from.guided());

  const v1::Sampling& sampling = from.sampling();
  to.sampling = {SamplingFieldsOf(sampling), {}};
  to.sampling.logit_bias.assign(sampling.logit_bias().begin(), sampling.logit_bias().end());
  std::ranges::sort(to.sampling.logit_bias);
  if (sampling.has_seed()) to.sampling.seed = sampling.seed();
  if (sampling.has_n()) to.sampling.n = sampling.n();
  to.sampling.bad_words.assign(sampling.bad_words().begin(), sampling.bad_words().end());
  to.sampling.allowed_token_ids.assign(sampling.allowed_token_ids().begin(),
                                       sampling.allowed_token_ids().end());

  const v1::Stop& stop = from.stop();
  if (stop.has_max_tokens()) to.stop.max_tokens = stop.max_tokens();
  if (stop.has_min_tokens()) to.stop.min_tokens = stop.min_tokens();
  to.stop.strings.assign(stop.strings().begin(), stop.strings().end());
  to.stop.token_ids.assign(stop.token_ids().begin(), stop.token_ids().end());
  to.stop.ignore_eos = stop.ignore_eos();
  to.stop.include_stop = stop.include_stop();

  const v1::Output& output = from.output();
  if (output.has_logprobs()) to.output.logprobs = output.logprobs();
  if (output.has_prompt_logprobs()) to.output.prompt_logprobs = output.prompt_logprobs();
  if (output.has_ids()) to.output.ids = output.ids();
  if (output.has_text()) to.output.text = output.text();
  to.output.keep_special = output.keep_special();
  const v1::Thinking& thinking = from.thinking();
  if (thinking.has_token_budget()) to.thinking.token_budget = thinking.token_budget();
  to.thinking.effort = thinking.effort();
  return to;
}

template <class From>
std::optional<int32_t> TruncateOf(const From& from) {
  if (!from.has_truncate_prompt_tokens()) return std::nullopt;
  return from.truncate_prompt_tokens();
}

// For the messages of Chat and of Tokenize.
template <class From>
ChatPrompt ChatOf(From& from) {
  ChatPrompt chat;
  for (v1::ChatMessage& message : *from.mutable_messages()) {
    ChatMessage& to = chat.messages.emplace_back();
    to.role = message.role();
    if (message.has_content()) to.content = std::move(*message.mutable_content());
    if (message.has_reasoning()) to.reasoning = std::move(*message.mutable_reasoning());
    auto& parts = *message.mutable_content_parts();
    to.content_parts.assign(std::move_iterator(parts.begin()), std::move_iterator(parts.end()));
    to.tool_call_id = message.tool_call_id();
    to.name = message.name();
    for (v1::ToolCall& call : *message.mutable_tool_calls()) {
      to.tool_calls.push_back({call.id(), call.name(), std::move(*call.mutable_arguments_json())});
    }
  }
  chat.tools_json = std::move(*from.mutable_tools_json());
  if (from.has_enable_thinking()) chat.enable_thinking = from.enable_thinking();
  if (from.has_add_generation_prompt()) chat.add_generation_prompt = from.add_generation_prompt();
  chat.allow_special = from.allow_special_in_content();
  chat.kwargs_json = std::move(*from.mutable_chat_template_kwargs_json());
  chat.continue_final_message = from.continue_final_message();
  return chat;
}

// A kind of a newer proto has the meaning that is least: the model's answer as it is.
ToolChoice ChoiceOf(const v1::ToolChoice& choice) {
  ToolChoice to{.name = choice.name(), .parallel = !choice.one_call()};
  switch (choice.kind()) {
    case v1::ToolChoice::AUTO:
      to.kind = ToolChoice::Kind::kAuto;
      break;
    case v1::ToolChoice::REQUIRED:
      to.kind = ToolChoice::Kind::kRequired;
      break;
    case v1::ToolChoice::NAMED:
      to.kind = ToolChoice::Kind::kNamed;
      break;
    default:
      to.kind = ToolChoice::Kind::kNone;
  }
  return to;
}

}  // namespace

GenerateRequest FromProto(v1::GenerateRequest&& message) {
  GenerateRequest request{ParamsOf(message), {}};
  if (message.has_text()) {
    request.prompt = std::move(*message.mutable_text());
  } else if (message.has_token_ids()) {
    const auto& ids = message.token_ids().ids();
    request.prompt = std::vector<TokenId>(ids.begin(), ids.end());
  }
  request.truncate_prompt_tokens = TruncateOf(message);
  return request;
}

GenerateRequest FromProto(v1::ChatRequest&& message) {
  PublicRequest params = ParamsOf(message);
  ChatPrompt chat = ChatOf(message);
  chat.tool_choice = ChoiceOf(message.tool_choice());
  return {std::move(params), std::move(chat), TruncateOf(message)};
}

GenerateRequest FromProto(v1::ValidateRequest&& message) {
  return message.has_chat() ? FromProto(std::move(*message.mutable_chat()))
                            : FromProto(std::move(*message.mutable_generate()));
}

ResumeRequest FromProto(const v1::ResumeRequest& message) {
  return {message.request_id(), {message.next_positions().begin(), message.next_positions().end()}};
}

TokenizeRequest FromProto(v1::TokenizeRequest&& message) {
  if (message.has_chat()) return {ChatOf(*message.mutable_chat())};
  return {std::move(*message.mutable_text()), message.add_special_tokens()};
}

DetokenizeRequest FromProto(const v1::DetokenizeRequest& message) {
  return {{message.ids().begin(), message.ids().end()}, message.skip_special()};
}

}  // namespace fathom::router
