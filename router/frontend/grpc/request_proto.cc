#include "router/frontend/grpc/request_proto.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/unknown_field_set.h>
#include <google/protobuf/wire_format_lite.h>

#include <algorithm>

#include "common/reason.h"

namespace fathom::router {
namespace {

namespace pb = google::protobuf;
using pb::internal::WireFormatLite;

// Strict: no surrogates, no overlong forms, nothing above U+10FFFF.
bool IsUtf8(const std::string& text) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  for (size_t i = 0; i < text.size();) {
    const unsigned char lead = bytes[i];
    const size_t size = lead < 0x80                   ? 1
                        : lead >= 0xc2 && lead < 0xe0 ? 2
                        : lead >= 0xe0 && lead < 0xf0 ? 3
                        : lead >= 0xf0 && lead < 0xf5 ? 4
                                                      : 0;
    if (size == 0 || i + size > text.size()) return false;
    for (size_t k = 1; k < size; ++k) {
      if ((bytes[i + k] & 0xc0) != 0x80) return false;
    }
    const unsigned char second = size > 1 ? bytes[i + 1] : 0x80;
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) ||
        (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f)) {
      return false;
    }
    i += size;
  }
  return true;
}

// The path of the first string field in `bytes` that is not UTF-8; empty: none was found.
std::string FindBadText(const std::string& bytes, const pb::Descriptor& type, int depth) {
  pb::io::ArrayInputStream array(bytes.data(), static_cast<int>(bytes.size()));
  pb::io::CodedInputStream in(&array);
  std::vector<int> seen(type.field_count());
  while (const uint32_t tag = in.ReadTag()) {
    const pb::FieldDescriptor* field =
        type.FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    const bool sized =
        WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
    if (field == nullptr || !sized) {
      if (!WireFormatLite::SkipField(&in, tag)) return {};
      continue;
    }
    uint32_t size = 0;
    std::string value;
    if (!in.ReadVarint32(&size) || !in.ReadString(&value, static_cast<int>(size))) return {};
    std::string name = field->is_repeated()
                           ? fmt::format("{}[{}]", field->name(), seen[field->index()]++)
                           : field->name();
    if (field->type() == pb::FieldDescriptor::TYPE_STRING && !IsUtf8(value)) return name;
    if (field->type() == pb::FieldDescriptor::TYPE_MESSAGE && depth < 16) {
      const std::string inner = FindBadText(value, *field->message_type(), depth + 1);
      if (!inner.empty()) return fmt::format("{}.{}", name, inner);
    }
  }
  return {};
}

// The path of the first field that this version does not know; empty: none.
std::string FindUnknown(const pb::Message& message) {
  const pb::Reflection& reflection = *message.GetReflection();
  const pb::UnknownFieldSet& unknown = reflection.GetUnknownFields(message);
  if (!unknown.empty()) return fmt::format("#{}", unknown.field(0).number());
  std::vector<const pb::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const pb::FieldDescriptor* field : fields) {
    if (field->cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE || field->is_map()) continue;
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const std::string inner =
          FindUnknown(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                           : reflection.GetMessage(message, field));
      if (!inner.empty()) return fmt::format("{}.{}", field->name(), inner);
    }
  }
  return {};
}

template <class From>
PublicRequest Common(const From& from) {
  PublicRequest to;
  to.tenant = "default";
  to.request_id = from.request_id();
  to.idempotency_key = from.idempotency_key();
  to.model = from.model();
  to.deadline_ms = from.deadline_ms();

  const v1::Sampling& sampling = from.sampling();
  if (sampling.has_temperature()) to.sampling.temperature = sampling.temperature();
  if (sampling.has_top_k()) to.sampling.top_k = sampling.top_k();
  if (sampling.has_top_p()) to.sampling.top_p = sampling.top_p();
  if (sampling.has_min_p()) to.sampling.min_p = sampling.min_p();
  if (sampling.has_repetition_penalty())
    to.sampling.repetition_penalty = sampling.repetition_penalty();
  if (sampling.has_presence_penalty()) to.sampling.presence_penalty = sampling.presence_penalty();
  if (sampling.has_frequency_penalty())
    to.sampling.frequency_penalty = sampling.frequency_penalty();
  to.sampling.logit_bias.assign(sampling.logit_bias().begin(), sampling.logit_bias().end());
  std::ranges::sort(to.sampling.logit_bias);
  if (sampling.has_seed()) to.sampling.seed = sampling.seed();
  if (sampling.has_n()) to.sampling.n = sampling.n();

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
  return to;
}

void ToProto(const TokenLogprob& from, v1::TokenLogprob* to) {
  to->set_id(from.id);
  to->set_logprob(from.logprob);
  to->mutable_top_ids()->Add(from.top_ids.begin(), from.top_ids.end());
  to->mutable_top_logprobs()->Add(from.top_logprobs.begin(), from.top_logprobs.end());
}

void ToProto(const StartedEvent& from, v1::Started* to) {
  to->set_request_id(from.request_id);
  to->set_seed(from.seed);
  to->set_prompt_tokens(from.prompt_tokens);
  to->set_cached_tokens(from.cached_tokens);
  to->set_fingerprint(from.fingerprint);
  to->set_model(from.model);
  router::ToProto(from.request.sampling, to->mutable_sampling());
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

void ToProto(const TokensEvent& from, v1::Tokens* to) {
  to->set_sequence(from.sequence);
  to->set_position(from.position);
  to->mutable_ids()->Add(from.ids.begin(), from.ids.end());
  to->set_text(from.text);
  to->set_reasoning(from.reasoning);
  for (const TokenLogprob& logprob : from.logprobs) ToProto(logprob, to->add_logprobs());
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

void ToProto(const FinishEvent& from, v1::Finish* to) {
  to->set_sequence(from.sequence);
  to->set_position(from.position);
  to->set_reason(ReasonToProto(from.reason));
  if (from.stop_token) to->set_stop_token_id(*from.stop_token);
  if (from.stop_string) to->set_stop_string(*from.stop_string);
  to->mutable_usage()->set_prompt_tokens(from.usage.prompt_tokens);
  to->mutable_usage()->set_completion_tokens(from.usage.completion_tokens);
  to->mutable_usage()->set_cached_tokens(from.usage.cached_tokens);
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

absl::Status ParseMessage(const std::string& bytes, pb::Message* message) {
  const std::string& type = message->GetDescriptor()->full_name();
  if (!message->ParseFromString(bytes)) {
    const std::string field = FindBadText(bytes, *message->GetDescriptor(), 0);
    if (!field.empty()) {
      return WithReason(Invalid("{} has bytes that are not UTF-8; encode the text as UTF-8", field),
                        Reason::kInvalidUtf8, field);
    }
    return WithReason(Invalid("{} bytes are not a {}; make the message with proto/inference.proto",
                              bytes.size(), type),
                      Reason::kMalformedMessage);
  }
  const std::string unknown = FindUnknown(*message);
  if (unknown.empty()) return absl::OkStatus();
  return WithReason(Invalid("{} has the field {}, which this version does not know; leave it out "
                            "or upgrade the server",
                            type, unknown),
                    Reason::kUnknownField, unknown);
}

std::string SerializeDeterministic(const pb::Message& message) {
  std::string bytes;
  {
    pb::io::StringOutputStream stream(&bytes);
    pb::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return bytes;
}

PublicRequest FromProto(const v1::GenerateRequest& message) { return Common(message); }
PublicRequest FromProto(const v1::ChatRequest& message) { return Common(message); }

ChatInput ChatInputOf(const pb::RepeatedPtrField<v1::ChatMessage>& messages,
                      const std::string& tools_json) {
  ChatInput input;
  for (const v1::ChatMessage& from : messages) {
    ChatMessage& to = input.messages.emplace_back();
    to.role = from.role();
    if (from.has_content()) to.content = from.content();
    if (from.has_reasoning()) to.reasoning = from.reasoning();
    to.content_parts.assign(from.content_parts().begin(), from.content_parts().end());
    to.tool_call_id = from.tool_call_id();
    to.name = from.name();
    for (const v1::ToolCall& call : from.tool_calls()) {
      to.tool_calls.push_back({call.id(), call.name(), call.arguments_json()});
    }
  }
  input.tools_json = tools_json;
  return input;
}

void ToProto(const SamplingParams& from, v1::Sampling* to) {
  to->set_temperature(from.temperature);
  to->set_top_k(from.top_k);
  to->set_top_p(from.top_p);
  to->set_min_p(from.min_p);
  to->set_repetition_penalty(from.repetition_penalty);
  to->set_presence_penalty(from.presence_penalty);
  to->set_frequency_penalty(from.frequency_penalty);
  for (const auto& [id, bias] : from.logit_bias) {
    // Suppressed tokens are the model's, so that what a client is told here it may ask for again.
    if (bias > kSuppressedBias) (*to->mutable_logit_bias())[id] = bias;
  }
}

v1::GenerateResponse ToProto(const ClientEvent& event) {
  v1::GenerateResponse response;
  if (const auto* started = std::get_if<StartedEvent>(&event)) {
    ToProto(*started, response.mutable_started());
  } else if (const auto* logprobs = std::get_if<PromptLogprobs>(&event)) {
    response.mutable_prompt_logprobs()->set_start(logprobs->start);
    for (const TokenLogprob& logprob : logprobs->logprobs) {
      ToProto(logprob, response.mutable_prompt_logprobs()->add_logprobs());
    }
  } else if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
    ToProto(*tokens, response.mutable_tokens());
  } else if (const auto* finish = std::get_if<FinishEvent>(&event)) {
    ToProto(*finish, response.mutable_finish());
  } else {
    response.mutable_keep_alive();
  }
  return response;
}

}  // namespace fathom::router
