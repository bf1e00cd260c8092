// router/api/requests.h: the requests that a front end gives to the API (inference_api.h) and the
// answers that it gets, as plain types. They belong to no protocol, so every front end fills the
// same structs. The events of a session are in router/sessions/client_events.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/cancel.h"
#include "common/trace_context.h"
#include "router/api/admission.h"
#include "router/sessions/sessions.h"
#include "text/chat_template.h"

namespace fathom::router {

// The tenant of every call to a router without keys (access_control.h).
inline constexpr char kDefaultTenant[] = "default";

// What the router knows of a call besides its request. The front end fills it in when the call
// comes.
struct CallContext {
  std::string tenant = kDefaultTenant;
  std::string peer;             // The other end of the connection; spelled as in client_address.h.
  std::string forwarded_for;    // The last "x-forwarded-for" header, unchanged; empty: none.
  TraceContext trace;           // The client's span; empty: the client does not trace.
  int64_t deadline_ms = 0;      // The call's own deadline, from when it came; 0: it has none.
  int64_t received_unix_s = 0;  // When the call came, for templates that show the date.
  CancelFn cancelled = {};      // Returns whether the call was cancelled.
};

// ---- Requests ----

// What the model may do with the tools of a request.
struct ToolChoice {
  enum class Kind : uint8_t {
    kAuto,      // Calls, or text, or both.
    kNone,      // Text alone: the model sees the tools, and its answer is not searched for calls.
    kRequired,  // At least one call.
    kNamed,     // A call of the tool `name`.
  };
  Kind kind = Kind::kAuto;
  std::string name;      // Of kNamed.
  bool parallel = true;  // false: at most one call.
};

// Messages for the model's chat template (text/chat_template.h).
struct ChatPrompt {
  std::vector<ChatMessage> messages;  // ChatRenderer sets their `literal`.
  std::string tools_json;             // A JSON array, or empty.
  ToolChoice tool_choice;
  std::optional<bool> enable_thinking;
  std::optional<bool> add_generation_prompt;
  // True: the text of a special token becomes that token in all messages and in tools. False: only
  // in the assistant's messages; everywhere else it is plain text.
  bool allow_special = false;
  std::string kwargs_json;  // A JSON object of further variables, or empty.
  bool continue_final_message = false;
};

// std::monostate: the request has no prompt.
using Prompt = std::variant<std::monostate, std::string, std::vector<TokenId>, ChatPrompt>;

struct GenerateRequest {
  PublicRequest params;
  Prompt prompt;
  // Only the last tokens of the prompt are kept, this many; -1: as many as fit. Absent: all.
  std::optional<int32_t> truncate_prompt_tokens = {};
};

struct ResumeRequest {
  std::string request_id;
  std::vector<int32_t> next_positions;
};

struct TokenizeRequest {
  std::variant<std::string, ChatPrompt> input;
  bool add_special_tokens = false;  // Only used for a text.
};

struct DetokenizeRequest {
  std::vector<TokenId> ids;
  bool skip_special = false;
};

// ---- Answers ----

struct TokenizeAnswer {
  std::vector<TokenId> ids;
  std::optional<std::string> rendered;  // The rendered text, if messages were given.
};

struct ModelAnswer {
  std::string name;
  std::string fingerprint, device, dtype;  // Empty: no worker has registered yet.
  int32_t context_tokens = 0;
  int64_t pool_tokens = 0;  // What the KV pool of one group can hold; 0: not known yet.
  int32_t vocab = 0;
  bool has_tokenizer = false;
  bool has_chat_template = false;
  SamplingParams default_sampling;
  std::vector<TokenId> end_token_ids;
};

struct StatusAnswer {
  absl::Status ready;  // As InferenceApi::Ready.
  std::string model;
  std::string build;
  Sessions::View view;
};

}  // namespace fathom::router
