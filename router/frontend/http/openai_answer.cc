#include "router/frontend/http/openai_answer.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace fathom::router {
namespace {

constexpr char kDone[] = "data: [DONE]\n\n";

const char* FinishText(const FinishEvent& event) {
  switch (event.reason) {
    case FinishReason::kEndToken:
    case FinishReason::kStopToken:
    case FinishReason::kStopString:
      return event.calls_tools ? "tool_calls" : "stop";
    // OpenAI has no name for a deadline, which cuts an answer as a length does; stop_reason tells.
    case FinishReason::kLength:
    case FinishReason::kDeadline:
      return "length";
    case FinishReason::kNone:
    case FinishReason::kError:
      return "error";
  }
  return "error";
}

void WriteIds(const std::vector<TokenId>& ids, JsonWriter* json) {
  json->BeginArray();
  for (const TokenId id : ids) json->Int(id);
  json->EndArray();
}

// A call, or more of it. `index`: in a stream.
void WriteCall(const ToolCallDelta& call, bool index, JsonWriter* json) {
  json->BeginObject();
  if (index) json->Key("index").Int(call.index);
  if (!call.name.empty()) json->Key("id").String(call.id).Key("type").String("function");
  json->Key("function").BeginObject();
  if (!call.name.empty()) json->Key("name").String(call.name);
  json->Key("arguments").String(call.arguments).EndObject().EndObject();
}

// The delta says something; the end of a call alone does not.
bool Shows(const ToolCallDelta& call) { return !call.name.empty() || !call.arguments.empty(); }

void AppendCalls(std::vector<ToolCallDelta> deltas, std::vector<ToolCallDelta>* calls) {
  for (ToolCallDelta& delta : deltas) {
    if (calls->empty() || calls->back().index != delta.index) {
      calls->push_back(std::move(delta));
    } else {
      calls->back().arguments += delta.arguments;
    }
  }
}

}  // namespace

OpenAiAnswer::OpenAiAnswer(AnswerParts parts)
    : parts_(std::move(parts)),
      options_(parts_.options),
      texts_(parts_.tokenizer, parts_.options.tokens_as_token_ids),
      request_id_(parts_.request_id),
      prompts_(parts_.echoes.size()),
      choices_(parts_.echoes.size() * static_cast<size_t>(options_.n)) {
  for (size_t i = 0; i < prompts_.size(); ++i) prompts_[i].echo = parts_.echoes[i];
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (!parts_.positions.empty()) choices_[i].position = parts_.positions[i];
    choices_[i].tokens = choices_[i].position;
    if (options_.stream && !options_.chat) {
      choices_[i].offsets.emplace(parts_.tokenizer, options_.skip_special);
    }
  }
}

int OpenAiAnswer::IndexOf(int prompt, int32_t sequence) const {
  FATHOM_CHECK(sequence >= 0 && sequence < options_.n, "sequence {} of {}", sequence, options_.n);
  return prompt * options_.n + sequence;
}

// ---- Chunks

std::string OpenAiAnswer::Event(const std::string& json, bool after_end) const {
  std::string event = "id: " + request_id_;
  char separator = ':';
  for (const Choice& choice : choices_) {
    event += separator;
    event += std::to_string(after_end ? choice.tokens + 1 : choice.position);
    separator = ',';
  }
  event += "\ndata: ";
  event += json;
  return event += "\n\n";
}

JsonWriter OpenAiAnswer::BeginChunk(int index) const {
  JsonWriter json;
  json.Raw(head_).Key("choices").BeginArray().BeginObject().Key("index").Int(index);
  return json;
}

std::string OpenAiAnswer::EndChunk(JsonWriter* json) const {
  json->EndObject().EndArray();
  if (options_.continuous_usage) {
    json->Key("usage");
    WriteUsage(json);
  } else if (options_.include_usage) {
    json->Key("usage").Null();
  }
  json->EndObject();
  return Event(json->text(), /*after_end=*/false);
}

void OpenAiAnswer::WriteUsage(JsonWriter* json) const {
  int64_t prompt = 0, cached = 0, completion = 0, drafted = 0, accepted = 0;
  for (const PromptState& one : prompts_) {
    prompt += one.tokens;
    cached += one.cached;
  }
  for (const Choice& choice : choices_) {
    completion += choice.tokens;
    if (!choice.finish) continue;
    drafted += choice.finish->usage.drafted_tokens;
    accepted += choice.finish->usage.accepted_draft_tokens;
  }
  json->BeginObject().Key("prompt_tokens").Int(prompt);
  json->Key("completion_tokens").Int(completion).Key("total_tokens").Int(prompt + completion);
  json->Key("prompt_tokens_details").BeginObject().Key("cached_tokens").Int(cached).EndObject();
  if (drafted > 0) {
    json->Key("completion_tokens_details").BeginObject();
    json->Key("accepted_prediction_tokens").Int(accepted);
    json->Key("rejected_prediction_tokens").Int(drafted - accepted).EndObject();
  }
  json->EndObject();
}

std::string OpenAiAnswer::OnStarted(int prompt, const StartedEvent& event,
                                    std::vector<TokenId> prompt_ids) {
  PromptState& state = prompts_[prompt];
  state.tokens = event.prompt_tokens;
  state.cached = event.cached_tokens;
  state.ids = std::move(prompt_ids);
  if (options_.echo && state.echo.empty() && parts_.tokenizer != nullptr) {
    state.echo = parts_.tokenizer->Decode(state.ids, options_.skip_special).value_or("");
  }
  if (head_.empty()) {
    if (request_id_.empty()) request_id_ = event.request_id;
    JsonWriter json;
    const char* object = !options_.chat    ? "text_completion"
                         : options_.stream ? "chat.completion.chunk"
                                           : "chat.completion";
    json.BeginObject().Key("id").String((options_.chat ? "chatcmpl-" : "cmpl-") + request_id_);
    json.Key("object").String(object).Key("created").Int(parts_.created_unix_s);
    json.Key("model").String(event.model).Key("system_fingerprint").String(event.fingerprint);
    head_ = json.Take();
  }
  if (!options_.stream) return {};
  // The log-probabilities of the prompt stand in the first chunk of each choice.
  const bool waits = options_.wants_prompt_logprobs() && state.tokens > 1;
  const std::string chunks = waits ? "" : TakeBegin(prompt);
  return chunks.empty() ? ": accepted\n" : chunks;
}

std::string OpenAiAnswer::TakeBegin(int prompt) {
  PromptState& state = prompts_[prompt];
  if (!options_.stream || std::exchange(state.begun, true)) return {};
  std::string chunks;
  for (int32_t sequence = 0; sequence < options_.n; ++sequence) {
    const int index = IndexOf(prompt, sequence);
    if (choices_[index].position > 0) continue;  // A resume: the client has the begin.
    const bool empty =
        state.echo.empty() && !options_.return_token_ids && !options_.wants_prompt_logprobs();
    if (!options_.chat && empty) continue;
    JsonWriter json = BeginChunk(index);
    if (options_.chat) {
      json.Key("delta").BeginObject().Key("role").String("assistant").Key("content").String("");
      json.EndObject();
    } else {
      json.Key("text").String(state.echo);
    }
    json.Key("logprobs");
    if (options_.echo && options_.logprobs && !state.ids.empty()) {
      WriteCompletionLogprobs(state.ids.front(), state.logprobs, texts_, &*choices_[index].offsets,
                              &json);
    } else {
      json.Null();
    }
    json.Key("finish_reason").Null();
    if (options_.return_token_ids) {
      json.Key("prompt_token_ids");
      WriteIds(state.ids, &json);
    }
    if (options_.prompt_logprobs) {
      json.Key("prompt_logprobs");
      WritePromptLogprobs(state.logprobs, texts_, &json);
    }
    chunks += EndChunk(&json);
  }
  return chunks;
}

std::string OpenAiAnswer::OnPromptLogprobs(int prompt, PromptLogprobs event) {
  PromptState& state = prompts_[prompt];
  std::vector<TokenLogprob>& all = state.logprobs;
  all.insert(all.end(), std::make_move_iterator(event.logprobs.begin()),
             std::make_move_iterator(event.logprobs.end()));
  return static_cast<int32_t>(all.size()) + 1 < state.tokens ? "" : TakeBegin(prompt);
}

std::string OpenAiAnswer::OnTokens(int prompt, TokensEvent event) {
  const int index = IndexOf(prompt, event.sequence);
  Choice& choice = choices_[index];
  const std::string begin = TakeBegin(prompt);
  choice.position = event.position + static_cast<int32_t>(event.ids.size());
  choice.tokens = choice.position;
  if (!options_.include_reasoning) event.reasoning.clear();
  if (!options_.stream) {
    choice.text += event.text;
    choice.reasoning += event.reasoning;
    AppendCalls(std::move(event.calls), &choice.calls);
    if (options_.return_token_ids) {
      choice.ids.insert(choice.ids.end(), event.ids.begin(), event.ids.end());
    }
    choice.logprobs.insert(choice.logprobs.end(), std::make_move_iterator(event.logprobs.begin()),
                           std::make_move_iterator(event.logprobs.end()));
    return {};
  }
  const bool logprobs = options_.logprobs && !event.logprobs.empty();
  const bool ids = options_.return_token_ids && !event.ids.empty();
  std::erase_if(event.calls, [](const ToolCallDelta& call) { return !Shows(call); });
  const bool shows = !event.text.empty() || !event.reasoning.empty() || !event.calls.empty();
  if (!shows && !logprobs && !ids) return begin;
  JsonWriter json = BeginChunk(index);
  if (options_.chat) {
    WriteDelta(event, &json);
  } else {
    json.Key("text").String(event.text);
  }
  json.Key("logprobs");
  if (!logprobs) {
    json.Null();
  } else if (options_.chat) {
    WriteChatLogprobs(event.logprobs, texts_, &json);
  } else {
    WriteCompletionLogprobs(std::nullopt, event.logprobs, texts_, &*choice.offsets, &json);
  }
  json.Key("finish_reason").Null();
  if (ids) {
    json.Key("token_ids");
    WriteIds(event.ids, &json);
  }
  return begin + EndChunk(&json);
}

void OpenAiAnswer::WriteDelta(const TokensEvent& event, JsonWriter* json) {
  json->Key("delta").BeginObject();
  if (!event.reasoning.empty()) {
    json->Key("reasoning").String(event.reasoning);
    json->Key("reasoning_content").String(event.reasoning);
  }
  if (!event.text.empty() || (event.reasoning.empty() && event.calls.empty())) {
    json->Key("content").String(event.text);
  }
  if (!event.calls.empty()) {
    json->Key("tool_calls").BeginArray();
    for (const ToolCallDelta& call : event.calls) WriteCall(call, /*index=*/true, json);
    json->EndArray();
  }
  json->EndObject();
}

std::string OpenAiAnswer::OnFinish(int prompt, FinishEvent event) {
  const int index = IndexOf(prompt, event.sequence);
  Choice& choice = choices_[index];
  const std::string begin = TakeBegin(prompt);
  // With a chunk for the usage after it, a client that lost that chunk gets this one again.
  choice.position = event.position + (options_.include_usage ? 0 : 1);
  choice.tokens = event.position;
  choice.finish = std::move(event);
  if (!options_.stream) return {};
  JsonWriter json = BeginChunk(index);
  if (options_.chat) {
    json.Key("delta").BeginObject().EndObject();
  } else {
    json.Key("text").String("");
  }
  json.Key("logprobs").Null();
  WriteEnd(*choice.finish, &json);
  return begin + EndChunk(&json);
}

void OpenAiAnswer::WriteEnd(const FinishEvent& event, JsonWriter* json) const {
  json->Key("finish_reason").String(FinishText(event)).Key("stop_reason");
  if (event.stop_string) {
    json->String(*event.stop_string);
  } else if (event.reason == FinishReason::kStopToken && event.stop_token) {
    json->Int(*event.stop_token);
  } else if (event.reason == FinishReason::kDeadline) {
    json->String("deadline");
  } else {
    json->Null();
  }
  if (!options_.timings) return;
  json->Key("timings").BeginObject();
  json->Key("queue_us").Int(event.timings.queue_us);
  json->Key("prefill_us").Int(event.timings.prefill_us);
  json->Key("decode_us").Int(event.timings.decode_us);
  json->Key("suspensions").Int(event.timings.suspensions);
  json->Key("total_us").Int(event.total_us).EndObject();
}

bool OpenAiAnswer::complete() const {
  return std::ranges::all_of(choices_, [](const Choice& c) { return c.finish.has_value(); });
}

std::string OpenAiAnswer::StreamEnd() {
  if (!options_.include_usage) return kDone;
  // The client of a resume had the end of such a choice, which counts as one more.
  for (Choice& choice : choices_) {
    if (!choice.finish) choice.tokens = std::max(0, choice.position - 1);
  }
  JsonWriter json;
  json.Raw(head_).Key("choices").BeginArray().EndArray().Key("usage");
  WriteUsage(&json);
  json.EndObject();
  return Event(json.text(), /*after_end=*/true) + kDone;
}

// ---- Whole answers

void OpenAiAnswer::WriteLogprobs(const PromptState& prompt, const Choice& choice,
                                 JsonWriter* json) const {
  if (!options_.logprobs) {
    json->Null();
  } else if (options_.chat) {
    WriteChatLogprobs(choice.logprobs, texts_, json);
  } else {
    TextOffsets offsets(parts_.tokenizer, options_.skip_special);
    std::optional<TokenId> absent;
    std::vector<TokenLogprob> all;
    if (options_.echo && !prompt.ids.empty()) {
      absent = prompt.ids.front();
      all = prompt.logprobs;
    }
    all.insert(all.end(), choice.logprobs.begin(), choice.logprobs.end());
    WriteCompletionLogprobs(absent, all, texts_, &offsets, json);
  }
}

void OpenAiAnswer::WriteMessage(const Choice& choice, JsonWriter* json) {
  json->Key("message").BeginObject().Key("role").String("assistant").Key("content");
  if (choice.text.empty() && !choice.calls.empty()) {
    json->Null();
  } else {
    json->String(choice.text);
  }
  json->Key("refusal").Null();
  if (!choice.reasoning.empty()) {
    json->Key("reasoning").String(choice.reasoning);
    json->Key("reasoning_content").String(choice.reasoning);
  }
  if (!choice.calls.empty()) {
    json->Key("tool_calls").BeginArray();
    for (const ToolCallDelta& call : choice.calls) WriteCall(call, /*index=*/false, json);
    json->EndArray();
  }
  json->EndObject();
}

void OpenAiAnswer::WriteChoice(int prompt, int index, JsonWriter* json) const {
  const PromptState& state = prompts_[prompt];
  const Choice& choice = choices_[index];
  json->BeginObject().Key("index").Int(index);
  if (options_.chat) {
    WriteMessage(choice, json);
  } else {
    json->Key("text").String(state.echo + choice.text);
  }
  json->Key("logprobs");
  WriteLogprobs(state, choice, json);
  WriteEnd(*choice.finish, json);
  if (options_.return_token_ids) {
    json->Key("prompt_token_ids");
    WriteIds(state.ids, json);
    json->Key("token_ids");
    WriteIds(choice.ids, json);
  }
  if (options_.prompt_logprobs) {
    json->Key("prompt_logprobs");
    WritePromptLogprobs(state.logprobs, texts_, json);
  }
  json->EndObject();
}

std::string OpenAiAnswer::Whole() const {
  JsonWriter json;
  json.Raw(head_).Key("choices").BeginArray();
  for (size_t i = 0; i < choices_.size(); ++i) {
    WriteChoice(static_cast<int>(i) / options_.n, static_cast<int>(i), &json);
  }
  json.EndArray().Key("usage");
  WriteUsage(&json);
  json.EndObject();
  return json.Take() + "\n";
}

}  // namespace fathom::router
