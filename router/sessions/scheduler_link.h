// router/sessions/scheduler_link.h: the way to the leading scheduler as sessions see it, and back.
// gRPC is behind it (grpc_scheduler_link.h); tests use an in-process fake.
//
// A `StreamId` names one life of the stream to a leader and never comes back. Whoever sends names
// the stream it means, so that nothing meant for an old leader reaches a new one. Thread:
// SchedulerLink's methods from any thread, they never block and never call back. SchedulerEvents'
// methods come from the link's threads, with no lock of the link held.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cluster/request.h"
#include "common/status.h"
#include "common/types.h"

namespace fathom::router {

using StreamId = Id<struct RouteStreamTag, uint64_t>;  // 0: none.

// From the leader's Hello.
struct SchedulerFacts {
  TermId term;
  std::string model;
  std::string config_digest;  // Empty until a worker was there.
  std::string fingerprint;
  int32_t context_tokens = 0;
  int32_t block_tokens = 0;
  int32_t pool_blocks = 0;  // Of one group, without the padding block.
  int32_t groups = 0;       // That can take work now.
  int32_t vocab = 0;
  std::string device_kind;  // "cpu", "cuda-sm90".
  std::string dtype;        // Of computing.
  bool operator==(const SchedulerFacts&) const = default;
};

struct SubmitUp {
  AttemptId attempt;
  SessionKey key;
  std::optional<Record> record;  // Absent: a resume that knows only the key.
  std::string router_blob;
  std::vector<int32_t> have;
  int64_t deadline_ms = 0;  // What is left; 0: none.
  bool replay = false;
  int64_t age_ms = 0;
};

struct AcceptedDown {
  AttemptId attempt;
  std::string request_id;
  uint64_t seed = 0;
  int32_t cached_tokens = 0;
  std::optional<Record> record;
  std::string router_blob;
};

struct FrameEnd {
  FinishReason reason = FinishReason::kNone;
  Usage usage;
  SequenceTimings timings;
};

struct FrameDown {
  AttemptId attempt;
  int32_t sequence = 0;
  int32_t position = 0;  // Of ids[0]; with no ids: the next one.
  std::vector<TokenId> ids;
  std::vector<TokenLogprob> logprobs;
  std::optional<PromptLogprobs> prompt_logprobs;
  std::string fingerprint;
  ComputeKind kind = {};  // Beside a fingerprint.
  std::optional<FrameEnd> end;
  absl::Status error;  // Not OK: the sequence failed.
};

struct ClusterStats {
  int32_t requests_running = 0;
  int32_t requests_waiting = 0;
  int32_t blocks_total = 0;
  int32_t blocks_used = 0;
  int32_t groups = 0;
  std::string last_loss;     // Which rank and why, of the last group that was lost; "": none was.
  int32_t losses_alike = 0;  // Losses in a row for that reason, of groups that never worked.
};

class SchedulerLink {
 public:
  virtual ~SchedulerLink() = default;

  // False: `stream` is not the leader's any more, or too much waits to be written; then OnWritable
  // follows.
  virtual bool Submit(StreamId stream, const SubmitUp& submit) = 0;
  // Small, so never refused for want of room; dropped when `stream` is over.
  virtual void Suspend(StreamId stream, AttemptId attempt, const SessionKey& key) = 0;
  virtual void Close(StreamId stream, const SessionKey& key, int32_t sequence, int32_t length,
                     FinishReason reason) = 0;
  // Ends `stream`, because what came over it cannot be; OnDown and a new OnUp follow.
  virtual void Reset(StreamId stream) = 0;
};

class SchedulerEvents {
 public:
  virtual ~SchedulerEvents() = default;

  // A leader answers on a new stream. Streams rise; one that is lower than the last is ignored.
  virtual void OnUp(StreamId stream, const SchedulerFacts& facts) = 0;
  // The same leader has other facts now.
  virtual void OnFacts(StreamId stream, const SchedulerFacts& facts) = 0;
  virtual void OnDown(StreamId stream) = 0;
  // After a Submit that found no room: there is some now.
  virtual void OnWritable(StreamId stream) = 0;
  virtual void OnAccepted(AcceptedDown accepted) = 0;
  virtual void OnRefused(AttemptId attempt, const absl::Status& status) = 0;
  virtual void OnFrames(StreamId stream, std::span<FrameDown> frames) = 0;
  virtual void OnStats(const ClusterStats& stats) = 0;
};

}  // namespace fathom::router
