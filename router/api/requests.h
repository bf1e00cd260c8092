// router/api/requests.h: what a front end asks of the router and what it is answered, in plain
// types (inference_api.h). Nothing here is a protocol's: gRPC and HTTP fill the same structs. What
// a session tells its client is router/sessions/client_events.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/cancel.h"
#include "router/api/admission.h"
#include "router/sessions/sessions.h"
#include "text/chat_template.h"

namespace fathom::router {

// Whom a call is made for, as long as the router knows one tenant.
inline constexpr char kDefaultTenant[] = "default";

// What a call brings beside its request; the front end fills it in when the call comes.
struct CallContext {
  std::string tenant = kDefaultTenant;
  std::string peer;             // The other end of the connection, as client_address.h has it.
  std::string forwarded_for;    // The last "x-forwarded-for" header, as it came; empty: none.
  std::string trace_id;         // trace_id.h; empty: the client does not trace.
  int64_t deadline_ms = 0;      // Until the call's own deadline, when it came; 0: it has none.
  int64_t received_unix_s = 0;  // The wall clock when it came, for templates that show the date.
  CancelFn cancelled = {};      // Whether its client has gone.
};

// ---- Requests ----

// Messages for the model's chat template (text/chat_template.h).
struct ChatPrompt {
  std::vector<ChatMessage> messages;  // `literal` is the renderer's to set.
  std::string tools_json;             // A JSON array, or empty.
  std::optional<bool> enable_thinking;
  std::optional<bool> add_generation_prompt;
  // Special tokens' text in system, user and tool messages and in tools is markup; else plain text.
  bool allow_special = false;
  std::string kwargs_json;  // A JSON object of further variables, or empty.
  bool continue_final_message = false;
};

// std::monostate: none was given.
using Prompt = std::variant<std::monostate, std::string, std::vector<TokenId>, ChatPrompt>;

struct GenerateRequest {
  PublicRequest params;
  Prompt prompt;
};

struct ResumeRequest {
  std::string request_id;
  std::vector<int32_t> next_positions;
};

struct TokenizeRequest {
  std::variant<std::string, ChatPrompt> input;
  bool add_special_tokens = false;  // For a text.
};

struct DetokenizeRequest {
  std::vector<TokenId> ids;
  bool skip_special = false;
};

// ---- Answers ----

struct TokenizeAnswer {
  std::vector<TokenId> ids;
  std::optional<std::string> rendered;  // Of messages.
};

struct ModelAnswer {
  std::string name;
  std::string fingerprint, device, dtype;  // Empty: no worker was there yet.
  int32_t context_tokens = 0;
  int64_t pool_tokens = 0;  // Of one group's whole KV cache; 0: not known yet.
  int32_t vocab = 0;
  bool has_tokenizer = false;
  bool has_chat_template = false;
  SamplingParams default_sampling;
  std::vector<TokenId> end_token_ids;
};

struct StatusAnswer {
  absl::Status ready;  // OK: a request would be answered. Else why not.
  std::string model;
  std::string build;
  Sessions::View view;
};

}  // namespace fathom::router
