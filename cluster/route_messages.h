// cluster/route_messages.h: what routers and the scheduler say to each other about sessions. Plain
// data with the fields of cluster.proto; no IO. Durations are in microseconds; on the wire they are
// in milliseconds (cluster/wire.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cluster/messages.h"
#include "cluster/request.h"
#include "common/status.h"
#include "common/types.h"

namespace fathom {

// ---- Up ----

// First try, retry, resume and takeover alike: an upsert by key.
struct Submit {
  AttemptId attempt;  // New for each Submit of a router; frames are matched by it alone.
  SessionKey key;
  std::optional<Record> record;  // Absent: a resume at a router that knows only the key.
  std::string router_blob;
  std::vector<int32_t> have;  // Per sequence, frames start from here; missing ones from 0.
  int64_t deadline_us = 0;    // What is left; 0: none.
  bool replay = false;        // Accepted before: exempt from queue limits.
  int64_t age_us = 0;         // Since its first acceptance.
  bool operator==(const Submit&) const = default;
};

// A Submit that cannot be read: only this attempt is refused, the stream goes on.
struct SubmitUnreadable {
  AttemptId attempt;
  absl::Status status;  // With ErrorDetail.
};

// Ends this attempt's subscription; the session is suspended when the last one is gone.
struct Suspend {
  AttemptId attempt;
  SessionKey key;
  bool operator==(const Suspend&) const = default;
};

// A router cuts a sequence at `length` tokens; it is finished.
struct Close {
  SessionKey key;
  int32_t sequence = 0;
  int32_t length = 0;
  FinishReason reason = FinishReason::kStopString;
  bool operator==(const Close&) const = default;
};

using RouteUpMessage = std::variant<Hello, Heartbeat, Submit, SubmitUnreadable, Suspend, Close>;

// ---- Down ----

struct Accepted {
  AttemptId attempt;
  std::string request_id;
  uint64_t seed = 0;
  int32_t cached_tokens = 0;
  std::optional<Record> record;  // When the Submit had only a key.
  std::string router_blob;       // Likewise.
  bool operator==(const Accepted&) const = default;
};

struct Refused {
  AttemptId attempt;
  absl::Status status;  // With ErrorDetail.
};

// How a sequence finished.
struct FrameFinish {
  FinishReason reason = FinishReason::kNone;
  Usage usage;
  SequenceTimings timings;
  bool operator==(const FrameFinish&) const = default;
};

struct Frame {
  AttemptId attempt;
  int32_t sequence = 0;
  int32_t position = 0;  // Of ids[0]; with no ids, the next one.
  std::vector<TokenId> ids;
  std::vector<TokenLogprob> logprobs;
  std::optional<PromptLogprobs> prompt_logprobs;
  std::string fingerprint;  // With an attempt's first frame and when it changes.
  ComputeKind kind = {};    // Likewise.
  std::optional<FrameFinish> finish;
  absl::Status error;  // Not OK: the sequence failed; no finish then.
};

// One step's frames for one router.
struct Frames {
  TermId term;
  std::vector<Frame> frames;
};

// Gauges of the cluster, and counters of one router's own requests.
struct ClusterStats {
  int32_t requests_running = 0;
  int32_t requests_waiting = 0;
  int32_t blocks_total = 0;
  int32_t blocks_used = 0;
  int32_t groups = 0;
  uint64_t suspensions_total = 0;  // These three: of the router's own finished or running requests.
  uint64_t prompt_tokens_total = 0;
  uint64_t generation_tokens_total = 0;
  std::string last_loss;     // Which rank and why, of the last group that was lost; "": none was.
  int32_t losses_alike = 0;  // Losses in a row for that reason, of groups that never worked.
  bool operator==(const ClusterStats&) const = default;
};

// std::monostate: of a kind that this build does not know; a router ignores it.
using RouteDownMessage =
    std::variant<std::monostate, Hello, Heartbeat, Accepted, Refused, Frames, ClusterStats, Resign>;

}  // namespace fathom
