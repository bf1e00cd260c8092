// router/sessions/client_events.h: the events that a session gives to its client, as plain types,
// and the interface through which a session wakes a front end. A front end converts each event to a
// message of its protocol.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cluster/request.h"
#include "cluster/request_timings.h"
#include "common/status.h"
#include "text/text_stream.h"

namespace fathom::router {

struct StartedEvent {
  std::string request_id;
  std::string model;
  std::string fingerprint;
  uint64_t seed = 0;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  Request request;  // With the effective values: defaults are filled in.
  std::vector<std::string> stop_strings;
  bool include_stop = false;
};

struct TokensEvent {
  int32_t sequence = 0;
  int32_t position = 0;  // The position of ids[0]; without ids: of the next token.
  std::vector<TokenId> ids;
  std::string text;
  std::string reasoning;  // Comes before `text` and `calls`.
  std::vector<TokenLogprob> logprobs;
  // Tool calls, in order; `text_before` says where they are in `text`. Ids of calls are a function
  // of request, sequence and index.
  std::vector<ToolCallDelta> calls = {};
};

struct FinishEvent {
  int32_t sequence = 0;
  int32_t position = 0;  // The number of tokens of the sequence.
  FinishReason reason = FinishReason::kNone;
  std::optional<TokenId> stop_token;
  std::optional<std::string> stop_string;
  Usage usage;
  RequestTimings timings;
  int64_t total_us = 0;
  // The scheduler's timings are known, and its end came after so long. It may be later than the
  // client's end (total_us).
  bool timings_known = false;
  int64_t whole_us = 0;
  std::vector<FingerprintSpan> fingerprints;
  bool calls_tools = false;  // The sequence has a tool call, perhaps before a resume.
  bool last = false;         // The stream ends OK with this event; no EndEvent follows.
};

struct KeepAliveEvent {};

struct EndEvent {
  absl::Status status;
};

using ClientEvent =
    std::variant<StartedEvent, PromptLogprobs, TokensEvent, FinishEvent, KeepAliveEvent, EndEvent>;

// A client's stream, as its session sees it. Any thread may call both methods, with no lock held.
// They must not block.
class ClientSink {
 public:
  virtual ~ClientSink() = default;
  // There may be an event. The sink must call Sessions::Take, write the event, call WriteDone when
  // it is written, and repeat until Take gives none.
  virtual void Wake() = 0;
  // The client reads nothing. The sink must end the write in flight now, as failed.
  virtual void Break() = 0;
};

}  // namespace fathom::router
