#include "router/api/canonical_encoding.h"

#include <bit>
#include <map>

namespace fathom::router {
namespace {

// ---- Values

std::string LittleEndian(uint64_t number, int bytes) {
  std::string value;
  for (int i = 0; i < bytes; ++i) value.push_back(static_cast<char>(number >> (8 * i)));
  return value;
}

std::string Value(const std::string& text) { return text; }
std::string Value(bool flag) { return LittleEndian(flag ? 1 : 0, 1); }
std::string Value(int32_t number) {
  return LittleEndian(static_cast<uint64_t>(int64_t{number}), 8);
}
std::string Value(float number) { return LittleEndian(std::bit_cast<uint32_t>(number), 4); }
std::string Value(const std::pair<TokenId, float>& bias);
std::string Value(const PublicSampling& sampling);
std::string Value(const PublicStop& stop);
std::string Value(const PublicOutput& output);
std::string Value(const ChatToolCall& call);
std::string Value(const ChatMessage& message);
std::string Value(const ToolChoice& choice);
std::string Value(const ChatPrompt& chat);
std::string Value(const PublicThinking& thinking);
std::string Value(const PublicGuided& guided);

void AppendSized(std::string* to, const std::string& value) {
  *to += LittleEndian(value.size(), 8);
  *to += value;
}

template <class T>
std::string Value(const std::vector<T>& list) {
  std::string value;
  for (const T& element : list) AppendSized(&value, Value(element));
  return value;
}

// ---- Fields

void AppendField(std::string* to, uint8_t tag, const std::string& value) {
  to->push_back(static_cast<char>(tag));
  AppendSized(to, value);
}

// A text, a list or a struct.
template <class T>
void Append(std::string* to, uint8_t tag, const T& field) {
  if (const std::string value = Value(field); !value.empty()) AppendField(to, tag, value);
}
void Append(std::string* to, uint8_t tag, bool field) {
  if (field) AppendField(to, tag, Value(field));
}
template <class T>
void Append(std::string* to, uint8_t tag, const std::optional<T>& field) {
  if (field) AppendField(to, tag, Value(*field));
}
// An alternative of a variant. Null: the variant has another alternative.
template <class T>
void Append(std::string* to, uint8_t tag, const T* field) {
  if (field != nullptr) AppendField(to, tag, Value(*field));
}

// Gives the fields the tags 1, 2, ...
template <class... Field>
std::string Struct(const Field&... fields) {
  std::string bytes;
  uint8_t tag = 0;
  (Append(&bytes, ++tag, fields), ...);
  return bytes;
}

// ---- Structs
// Each function names all members of its struct in a structured binding. A new member therefore
// does not compile until it is handled here. A member that is named and not encoded may differ
// between two repetitions of a request.

std::string Value(const std::pair<TokenId, float>& bias) { return Struct(bias.first, bias.second); }

std::string Value(const PublicSampling& sampling) {
  const auto& [logit_bias, seed, n, bad_words, allowed_token_ids, forbidden_ids] =
      static_cast<const SamplingExtras&>(sampling);
  static_cast<void>(seed);
  static_cast<void>(forbidden_ids);       // The two before decide it.
  std::map<uint8_t, std::string> fields;  // By tag.
  ForEachSamplingField([&](const SamplingField& row, auto, auto option) {
    Append(&fields[row.tag], row.tag, sampling.*option);
  });
  Append(&fields[8], 8, logit_bias);
  Append(&fields[9], 9, n);
  Append(&fields[11], 11, bad_words);
  Append(&fields[12], 12, allowed_token_ids);
  std::string bytes;
  for (const auto& [tag, field] : fields) bytes += field;
  return bytes;
}

std::string Value(const PublicStop& stop) {
  const auto& [max_tokens, min_tokens, strings, token_ids, ignore_eos, include_stop] = stop;
  return Struct(max_tokens, min_tokens, strings, token_ids, ignore_eos, include_stop);
}

std::string Value(const PublicOutput& output) {
  const auto& [logprobs, prompt_logprobs, ids, text, keep_special] = output;
  return Struct(logprobs, prompt_logprobs, ids, text, keep_special);
}

// The field's name says only where the client wrote it.
std::string Value(const PublicGuided& guided) {
  const auto& [spec, field] = guided;
  static_cast<void>(field);
  const auto& [kind, text, choices, closed] = spec;
  return Struct(std::optional(static_cast<int32_t>(kind)), text, choices, !closed);
}

std::string Value(const ChatToolCall& call) {
  const auto& [id, name, arguments_json] = call;
  return Struct(id, name, arguments_json);
}

std::string Value(const ChatMessage& message) {
  const auto& [role, content, content_parts, tool_calls, tool_call_id, name, reasoning, literal] =
      message;
  static_cast<void>(literal);  // The role and the chat's allow_special decide it.
  return Struct(role, content, content_parts, tool_calls, tool_call_id, name, reasoning);
}

std::string Value(const ToolChoice& choice) {
  const auto& [kind, name, parallel] = choice;
  const std::string names[] = {"", "none", "required", "named"};
  return Struct(names[static_cast<size_t>(kind)], name, !parallel);
}

std::string Value(const PublicThinking& thinking) {
  const auto& [token_budget, effort] = thinking;
  return Struct(token_budget, effort);
}

std::string Value(const ChatPrompt& chat) {
  const auto& [messages, tools_json, tool_choice, enable_thinking, add_generation_prompt,
               allow_special, kwargs_json, continue_final_message] = chat;
  return Struct(messages, tools_json, enable_thinking, add_generation_prompt, allow_special,
                kwargs_json, continue_final_message, tool_choice);
}

}  // namespace

std::string CanonicalEncoding(const GenerateRequest& request) {
  const auto& [params, prompt, truncate_prompt_tokens] = request;
  const auto& [request_id, idempotency_key, model, sampling, stop, output, deadline_ms, priority,
               cache, thinking, guided] = params;
  static_cast<void>(request_id);
  static_cast<void>(idempotency_key);
  static_cast<void>(deadline_ms);
  static_cast<void>(priority);  // These two change no token.
  static_cast<void>(cache);
  return Struct(model, sampling, stop, output, std::get_if<std::string>(&prompt),
                std::get_if<std::vector<TokenId>>(&prompt), std::get_if<ChatPrompt>(&prompt),
                truncate_prompt_tokens, thinking, guided);
}

}  // namespace fathom::router
