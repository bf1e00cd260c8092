// cluster/route_messages.h: the messages between routers and the scheduler about sessions. Plain
// data with the fields of cluster.proto; no IO. Durations are in microseconds here and in
// milliseconds on the wire (cluster/wire.h).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cluster/messages.h"
#include "cluster/rank_report.h"
#include "cluster/request.h"
#include "cluster/request_timings.h"
#include "cluster/step_tokens.h"
#include "common/status.h"
#include "common/types.h"

namespace fathom {

// ---- Up ----

// An upsert by key. A first try, a retry, a resume and a takeover are the same message.
struct Submit {
  AttemptId attempt;  // New for each Submit of a router; frames are matched by it.
  SessionKey key;
  std::optional<Record> record;  // Absent: a resume at a router that knows only the key.
  std::string router_blob;
  std::vector<int32_t> have;     // Frames start here, for each sequence; missing entries are 0.
  int64_t deadline_us = 0;       // The time that is left; 0: no deadline.
  bool replay = false;           // It was accepted before, so queue limits do not apply.
  int64_t age_us = 0;            // Time since its first acceptance.
  std::string traceparent = {};  // W3C Trace Context; decides nothing. Empty: none.
  bool operator==(const Submit&) const = default;
};

// A Submit that cannot be parsed. Only this attempt is refused; the stream continues.
struct SubmitUnreadable {
  AttemptId attempt;
  absl::Status status;  // With ErrorDetail.
};

// Ends the subscription of this attempt. The session is suspended when its last subscription ends.
struct Suspend {
  AttemptId attempt;
  SessionKey key;
  bool operator==(const Suspend&) const = default;
};

// The router ends a sequence after `length` tokens; the sequence is then finished.
struct Close {
  SessionKey key;
  int32_t sequence = 0;
  int32_t length = 0;
  FinishReason reason = FinishReason::kStopString;
  bool operator==(const Close&) const = default;
};

// Asks for the timings of a session until now.
struct ExplainAsk {
  uint64_t ask = 0;  // New for each ask of a router.
  SessionKey key;
  bool operator==(const ExplainAsk&) const = default;
};

using RouteUpMessage =
    std::variant<Hello, Heartbeat, Submit, SubmitUnreadable, Suspend, Close, ExplainAsk>;

// ---- Down ----

struct Accepted {
  AttemptId attempt;
  std::string request_id;
  uint64_t seed = 0;
  int32_t cached_tokens = 0;
  std::optional<Record> record;  // Present if the Submit had only a key.
  std::string router_blob;       // Present if the Submit had only a key.
  bool operator==(const Accepted&) const = default;
};

struct Refused {
  AttemptId attempt;
  absl::Status status;  // With ErrorDetail.
};

// The end of a sequence.
struct FrameFinish {
  FinishReason reason = FinishReason::kNone;
  Usage usage;
  bool operator==(const FrameFinish&) const = default;
};

struct Frame {
  AttemptId attempt;
  int32_t sequence = 0;
  int32_t position = 0;  // Position of ids[0]; without ids, the next position.
  std::vector<TokenId> ids;
  std::vector<TokenLogprob> logprobs;
  std::optional<PromptLogprobs> prompt_logprobs;
  std::string fingerprint;  // In the first frame of an attempt, and when it changes.
  ComputeKind kind = {};    // Present when `fingerprint` is.
  std::optional<FrameFinish> finish;
  absl::Status error;  // Not OK: the sequence failed, and `finish` is absent.
  std::optional<RequestTimings> timings = {};  // Present with `finish` or `error`.
};

// The frames of one step for one router.
struct Frames {
  TermId term;
  std::vector<Frame> frames;
};

// Gauges of the cluster, and counters of the requests of the router that receives them.
struct ClusterStats {
  int32_t requests_running = 0;
  int32_t requests_waiting = 0;
  int32_t blocks_total = 0;
  int32_t blocks_used = 0;
  int32_t groups = 0;
  uint64_t suspensions_total = 0;  // This and the next two: the router's own requests.
  uint64_t prompt_tokens_total = 0;
  uint64_t generation_tokens_total = 0;
  std::string last_loss;     // The last lost group: which rank and why; "": none.
  int32_t losses_alike = 0;  // Consecutive losses of groups that never worked, for the same reason.
  // Why workers are in no group, or what a group's start waits for; "": neither.
  std::string waiting = {};
  std::vector<RankReport> ranks = {};
  // Free workers would fill a group, but their hosts keep them from forming one.
  bool apart = false;
  std::array<int32_t, kWaitLimits> waiting_by = {};  // By WaitLimit; adds up to requests_waiting.
  StepTokens step_tokens = {};
  bool operator==(const ClusterStats&) const = default;
};

// The answer to ExplainAsk.
struct Explained {
  uint64_t ask = 0;
  bool found = false;  // The scheduler holds the session; else the rest is empty.
  RequestTimings timings;
  int32_t prompt_tokens = 0;
  int32_t generated_tokens = 0;
  int32_t max_tokens = 0;
  bool operator==(const Explained&) const = default;
};

// std::monostate: a kind of message that this build does not know; a router ignores it.
using RouteDownMessage = std::variant<std::monostate, Hello, Heartbeat, Accepted, Refused, Frames,
                                      ClusterStats, Resign, Explained>;

}  // namespace fathom
