// router/sessions/client_events.h: what a client is told of its session, in plain types, and the
// side of a front end that a session wakes. A front end turns each event into a message of its own
// protocol.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cluster/request.h"
#include "common/status.h"

namespace fathom::router {

struct StartedEvent {
  std::string request_id;
  std::string model;
  std::string fingerprint;
  uint64_t seed = 0;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  Request request;  // Effective values.
  std::vector<std::string> stop_strings;
  bool include_stop = false;
};

struct TokensEvent {
  int32_t sequence = 0;
  int32_t position = 0;  // Of ids[0]; without ids: the next one.
  std::vector<TokenId> ids;
  std::string text;
  std::string reasoning;
  std::vector<TokenLogprob> logprobs;
};

struct FinishEvent {
  int32_t sequence = 0;
  int32_t position = 0;  // Tokens of the sequence.
  FinishReason reason = FinishReason::kNone;
  std::optional<TokenId> stop_token;
  std::optional<std::string> stop_string;
  Usage usage;
  SequenceTimings timings;
  int64_t total_us = 0;
  std::vector<FingerprintSpan> fingerprints;
  bool last = false;  // The stream ends OK with it; no EndEvent follows.
};

struct KeepAliveEvent {};

struct EndEvent {
  absl::Status status;
};

using ClientEvent =
    std::variant<StartedEvent, PromptLogprobs, TokensEvent, FinishEvent, KeepAliveEvent, EndEvent>;

// The client's side. Both calls come from any thread, with no lock held; they must not block.
class ClientSink {
 public:
  virtual ~ClientSink() = default;
  // Something may be there to take: call Sessions::Take, write what it gives, call WriteDone,
  // repeat.
  virtual void Wake() = 0;
  // The write in flight must end now, without success (the reader is stuck).
  virtual void Break() = 0;
};

}  // namespace fathom::router
