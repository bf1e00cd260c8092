// client/types.h: the requests and answers of a client as plain types (proto/inference.proto
// without Protobuf). An absent optional means the model's default. Durations are in milliseconds.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cluster/request.h"
#include "cluster/request_timings.h"
#include "common/sampling_fields.h"
#include "common/types.h"

namespace fathom::client {

struct Sampling : SamplingOptions {
  std::map<TokenId, float> logit_bias;
  std::optional<uint64_t> seed;
  std::optional<int32_t> n;
};

struct Stop {
  std::optional<int32_t> max_tokens;
  std::optional<int32_t> min_tokens;
  std::vector<std::string> strings;
  std::vector<TokenId> token_ids;
  bool ignore_eos = false;
  bool include_stop = false;
};

struct Output {
  std::optional<int32_t> logprobs;  // 0: only of the chosen token; n: also of the n best tokens.
  std::optional<int32_t> prompt_logprobs;  // The same for the prompt, from its second token on.
  std::optional<bool> text;
  bool keep_special = false;
};

// The common fields of Generate and Chat.
struct RequestOptions {
  std::string request_id;  // Empty: the client makes one, so that it can resume from the start.
  // If set, the router derives request_id and a missing seed from it.
  std::string idempotency_key;
  std::string model;  // Empty: the served model.
  Sampling sampling;
  Stop stop;
  Output output;
  int64_t deadline_ms = 0;            // 0: none. Counted from when the router receives the request.
  std::optional<int32_t> priority;    // Smaller is more urgent; absent: 0.
  std::optional<bool> cache_enabled;  // false: neither takes from the prefix cache nor fills it.
  std::string cache_salt;             // Shares only with requests that have it too.
};

struct GenerateRequest : RequestOptions {
  std::variant<std::string, std::vector<TokenId>> prompt;
};

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments_json;
};

struct ChatMessage {
  std::string role;  // system, user, assistant, tool.
  std::optional<std::string> content;
  std::vector<std::string> content_parts;  // Texts that replace `content`.
  std::vector<ToolCall> tool_calls;
  std::string tool_call_id;
  std::optional<std::string> reasoning;
  std::string name;
};

// Messages that the model's chat template renders.
struct Conversation {
  std::vector<ChatMessage> messages;
  std::string tools_json;  // A JSON array as text, so that the order of keys is kept.
  // False: the answer is not searched for calls; it is the text that the model wrote.
  bool tool_calls = true;
  std::optional<bool> enable_thinking;
  std::optional<bool> add_generation_prompt;
  bool allow_special_in_content = false;
  std::string chat_template_kwargs_json;  // A JSON object of variables for the template.
  bool continue_final_message = false;    // The answer continues the last message.
};

struct ChatRequest : RequestOptions {
  Conversation conversation;
};

// ---- Answers ----

struct Started {
  std::string request_id;
  uint64_t seed = 0;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  std::string fingerprint;
  std::string model;
  std::string warning;
  Sampling sampling;  // Effective values.
  Stop stop;          // Effective values.
};

// More of a tool call; the first delta of a call has id and name.
struct ToolCallDelta {
  int32_t index = 0;
  std::string id;
  std::string name;
  std::string arguments;
  bool end = false;
  bool whole = false;  // With `end`: the arguments are one whole JSON object.
};

struct Tokens {
  int32_t sequence = 0;
  int32_t position = 0;  // Of ids[0], or of the next token if there is only text.
  std::vector<TokenId> ids;
  std::string text;
  std::string reasoning;
  std::vector<TokenLogprob> logprobs;
  std::vector<ToolCallDelta> tool_calls = {};
};

enum class FinishKind { kStop, kLength, kDeadline };
const char* FinishKindName(FinishKind kind);  // "stop", "length", "deadline".

struct Timings {
  int64_t queue_us = 0;
  int64_t prefill_us = 0;
  int64_t decode_us = 0;
  int64_t total_us = 0;  // In the router.
  int32_t suspensions = 0;
};

struct Finish {
  int32_t sequence = 0;
  FinishKind kind = FinishKind::kStop;
  // The stop token or stop string that matched.
  std::variant<std::monostate, TokenId, std::string> stop;
  Usage usage;
  Timings timings;
  int32_t position = 0;  // The number of tokens in the sequence.
  std::vector<FingerprintSpan> fingerprints;
  bool calls_tools = false;  // The answer has a tool call.
};

using Event = std::variant<Started, PromptLogprobs, Tokens, Finish>;

// One sequence of an answer.
struct SequenceResult {
  std::vector<TokenId> ids;
  std::string text;
  std::string reasoning;
  std::vector<TokenLogprob> logprobs;
  std::optional<Finish> finish;  // Present in every successful answer.
};

// Counts the effects of the network.
struct StreamCounts {
  int32_t attempts = 0;        // Calls made for this answer; 1: nothing broke.
  int64_t dropped_tokens = 0;  // Received twice and dropped.
  int32_t gaps = 0;            // Streams that were given up because a position was missing.
};

struct Answer {
  Started started;
  std::optional<PromptLogprobs> prompt_logprobs;  // All spans joined.
  std::vector<SequenceResult> sequences;
  StreamCounts counts;
};

struct TokenizeResult {
  std::vector<TokenId> ids;
  std::optional<std::string> rendered;  // For a conversation.
};

struct Model {
  std::string name;
  std::string fingerprint;
  int32_t context_tokens = 0;
  int32_t pool_tokens = 0;
  int32_t vocab = 0;
  bool has_tokenizer = false;
  bool has_chat_template = false;
  Sampling default_sampling;
  std::vector<TokenId> end_token_ids;
  std::string device;  // The computing device: "cpu", "cuda-sm90"; empty: unknown.
  std::string dtype;   // The type of the computation: "float32", "bfloat16", "float16".
};

// A part of a request's time.
struct TimePart {
  std::string name;
  int64_t us = 0;
};

// Where the time of one request went (Explanation of inference.proto, which says more). Durations
// are in microseconds; offsets count from when the scheduler got the request.
struct Explanation {
  struct Stay {
    int32_t group = 0;
    uint64_t epoch = 0;
    int64_t at_us = 0;
    int64_t us = 0;
    std::string end;  // "finished", "preempted", ...; "none": it is there now.
    int64_t prefill_us = 0;
  };
  std::string request_id;
  std::string model;
  std::string outcome;  // "RUNNING", "LENGTH", a code, ...
  std::string phase;    // In the scheduler; empty: not known.
  std::string reason;   // Of an error.
  std::string message;
  int64_t whole_us = 0;
  std::vector<TimePart> parts;  // They add up to the whole.
  bool scheduler_known = false;
  std::vector<TimePart> queue_behind, suspended_behind;
  std::vector<Stay> stays;
  int32_t stays_total = 0;
  std::vector<PromptChunk> chunks;
  int32_t chunks_total = 0;
  std::vector<TokenGap> gaps;
  std::optional<int64_t> first_token_us, last_token_us;  // In the scheduler.
  std::optional<int64_t> first_token_seen_us;            // In the router, from its begin.
  int32_t suspensions = 0;
  int32_t preemptions = 0;
  int32_t submits = 0;
  Usage usage;
  int32_t max_tokens = 0;               // Of each sequence.
  int32_t sequences = 0;                // 0: not known.
  std::optional<int64_t> ended_ago_us;  // Absent: it runs.
};

// What a rank of a group does, by its last heartbeat.
struct RankStatus {
  int32_t group = 0;
  int32_t rank = 0;
  std::string process_id;
  std::string host;
  std::string phase;
  uint64_t step = 0;
  std::string activity;
  std::optional<int32_t> layer;  // Of the model, from 0.
  uint64_t step_collectives = 0;
  int64_t still_ms = 0;  // Inside a step: the time without progress.
  std::optional<int32_t> waits_for;
  std::string doing;    // The same in words.
  std::string address;  // host:port of the worker's own port; empty: not known.
  std::string card;     // The GPU's name, as its driver gives it; empty on the CPU.
};

// The end of a part of a rank's start; times count from the begin of the group's start.
struct StartPart {
  std::string phase;
  int64_t at_us = 0;
  int64_t bytes = 0;  // Of the weights; 0: the part has none.
};

struct RankTimeline {
  int32_t rank = 0;
  std::string process_id;
  std::string host;
  std::vector<StartPart> parts;  // Ordered by time.
};

// The last start of a group that is up.
struct GroupTimeline {
  int32_t group = 0;
  uint64_t epoch = 0;
  int64_t total_us = 0;
  int32_t slowest_rank = 0;
  std::vector<RankTimeline> ranks;
};

struct ClusterStatus {
  bool ready = false;
  std::string reason;  // Why the cluster is not ready.
  std::string model;
  std::string build;
  uint64_t term = 0;
  int32_t groups = 0;
  int32_t requests_running = 0;
  int32_t requests_waiting = 0;
  int32_t blocks_total = 0;
  int32_t blocks_used = 0;
  int32_t sessions = 0;
  std::string fingerprint;
  int32_t context_tokens = 0;
  std::string last_loss;     // The last lost group: which rank and why; "": none.
  int32_t losses_alike = 0;  // Consecutive losses of groups that never worked, for the same reason.
  // Why workers are in no group, or what a group's start waits for; "": neither.
  std::string waiting;
  // Free workers would fill a group, but their hosts keep them from forming one.
  bool apart = false;
  std::vector<RankStatus> ranks;
  std::vector<GroupTimeline> starts;
};

}  // namespace fathom::client
