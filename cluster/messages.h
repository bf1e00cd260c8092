// cluster/messages.h: what every process of a cluster tells about itself: the first message of
// Route and Control, heartbeats, and the end of a leadership. Plain data with the fields of
// cluster.proto; no IO. route_messages.h and control_messages.h have the other messages.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cluster/group_start.h"
#include "cluster/protocol.h"
#include "common/engine_limits.h"
#include "common/types.h"

namespace fathom {

enum class Role { kUnspecified, kRouter, kScheduler, kWorker };
enum class Phase {
  kUnspecified,
  kStarting,
  kIdle,
  kLoading,
  kConnecting,
  kCapturing,
  kStepping,
  kDraining
};

// What a rank does in a step.
enum class Activity {
  kUnspecified,
  kBetweenSteps,
  kPreparing,  // Before the first layer.
  kAttention,
  kMlp,
  kHead,          // LM head and sampling.
  kStageMessage,  // A message from or to another stage.
  kOnDevice       // The step is queued on a device that does not tell where it is.
};

struct RankWork {
  Activity activity = Activity::kUnspecified;
  int32_t layer = -1;             // Of the model; -1: none.
  uint64_t step_collectives = 0;  // Collectives begun in the step.
  bool operator==(const RankWork&) const = default;
};

struct WorkerFacts {
  std::string host;
  std::string device;
  uint64_t memory_bytes = 0;
  std::string model;  // The name that clients see.
  std::string weights_digest;
  std::string fingerprint;
  EngineLimits limits;
  int32_t tp = 1;
  int32_t pp = 1;
  int32_t preferred_rank = -1;  // -1: none.
  std::string health_address;
  std::string device_kind;  // "cpu", "cuda-sm90".
  std::string dtype;        // The type of the computation.
  int32_t recipe = 0;       // docs/NUMERICS.md
  std::string card;         // The GPU's name; empty on the CPU.
  // Equal for the processes that one kernel runs, whatever their host's name is.
  std::string machine;
  // Equal for the processes of a machine that see the same /dev/shm.
  std::string shared_memory;
  std::vector<StartMark> startup;
  int64_t age_us = 0;  // The time from the start of the process to this message.
  // What proposes drafts (speculative decoding); equal for workers that propose alike. Empty:
  // nothing does.
  std::string proposer;
  // The vocabulary of the grammars that the worker can follow (Grammar::vocabulary). Empty: it has
  // no grammar engine.
  std::string grammar_vocabulary = {};
  bool operator==(const WorkerFacts&) const = default;
};

// What the scheduler tells routers about the workers' model. Empty until a worker has registered.
struct ClusterFacts {
  std::string model;
  std::string config_digest;
  std::string fingerprint;
  int32_t context_tokens = 0;
  int32_t block_tokens = 0;
  int32_t pool_blocks = 0;  // Blocks of one group, excluding the padding block.
  int32_t groups = 0;       // Groups that can take work now.
  int32_t vocab = 0;
  std::string device_kind;  // "cpu", "cuda-sm90".
  std::string dtype;        // The type of the computation.
  std::vector<GroupStart> starts = {};
  bool operator==(const ClusterFacts&) const = default;
};

struct SchedulerFacts {
  bool leader = false;
  TermId term;
  ClusterFacts cluster;
  bool operator==(const SchedulerFacts&) const = default;
};

// The first message on Route and Control, in both directions. A scheduler sends it again when its
// facts change.
struct Hello {
  std::string process_id;
  Role role = Role::kUnspecified;
  uint32_t protocol_min = kProtocolMin;
  uint32_t protocol_max = kProtocolMax;
  std::string build;
  TermId term_seen;                         // The highest term that the sender has seen.
  std::string config_digest;                // From a router or a worker.
  std::optional<WorkerFacts> worker;        // From a worker.
  std::optional<SchedulerFacts> scheduler;  // From a scheduler.
  bool operator==(const Hello&) const = default;
};

// Whether the sender and this build have a version of the protocol in common.
inline bool SpeaksProtocol(const Hello& hello) {
  return hello.protocol_min <= kProtocolMax && hello.protocol_max >= kProtocolMin;
}
// The version that both speak. REQUIRES: SpeaksProtocol(hello).
inline uint32_t CommonProtocol(const Hello& hello) {
  return hello.protocol_max < kProtocolMax ? hello.protocol_max : kProtocolMax;
}

struct Heartbeat {
  TermId term;  // The highest term that the sender has seen.
  bool hears_leader = false;
  Phase phase = Phase::kUnspecified;
  StepId step;
  uint64_t op = 0;
  uint64_t collective = 0;
  uint64_t progress = 0;  // Any change shows that the engine thread works.
  RankWork work = {};
  bool operator==(const Heartbeat&) const = default;
};

// The sender, which led with `term`, no longer leads.
struct Resign {
  TermId term;
  bool operator==(const Resign&) const = default;
};

}  // namespace fathom
