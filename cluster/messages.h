// cluster/messages.h: what routers and workers say about themselves and what workers are told
// about their group. Plain data with the fields of cluster.proto; no IO.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/types.h"

namespace fathom::scheduler {

inline constexpr uint32_t kProtocolMin = 1;
inline constexpr uint32_t kProtocolMax = 1;

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
const char* PhaseName(Phase phase);

struct StepMark {
  TermId term;
  EpochId epoch;
  StepId step;
};

struct WorkerLimits {
  int32_t context_tokens = 0;
  int32_t block_tokens = 0;
  int32_t pool_blocks = 0;  // With the padding block 0.
  int32_t slots = 0;        // Without the padding slot 0.
  int32_t step_tokens = 0;
  int32_t vocab = 0;
  int32_t mixed_step_tokens = 0;  // Of a step that decodes; 0: step_tokens.
  bool operator==(const WorkerLimits&) const = default;
};

struct WorkerFacts {
  std::string host;
  std::string device;
  uint64_t memory_bytes = 0;
  std::string model;
  std::string weights_digest;
  std::string fingerprint;
  WorkerLimits limits;
  StepMark last_started, last_finished;
  int32_t tp = 1;
  int32_t pp = 1;
  int32_t preferred_rank = -1;  // -1: none.
  std::string health_address;
  std::string device_kind;  // "cpu", "cuda-sm90".
  std::string dtype;        // Of computing.
  int32_t recipe = 0;       // docs/NUMERICS.md
};

// First on Route and Control.
struct PeerHello {
  std::string process_id;
  Role role = Role::kUnspecified;
  uint32_t protocol_min = 0;
  uint32_t protocol_max = 0;
  std::vector<std::string> features;
  std::string build;
  TermId term_seen;
  std::string config_digest;
  std::optional<WorkerFacts> worker;
};

// What routers are told about the cluster, in Hello; empty until a worker was here.
struct ClusterFacts {
  std::string model;
  std::string config_digest;
  std::string fingerprint;
  int32_t context_tokens = 0;
  int32_t block_tokens = 0;
  int32_t pool_blocks = 0;  // Of one group, without the padding block.
  int32_t groups = 0;       // That can take work now.
  int32_t vocab = 0;
  std::string device_kind;
  std::string dtype;
  bool operator==(const ClusterFacts&) const = default;
};

struct Heartbeat {
  TermId term;  // The highest the peer has seen.
  bool hears_leader = false;
  Phase phase = Phase::kUnspecified;
  StepId step;
  uint64_t op = 0;
  uint64_t collective = 0;
  uint64_t progress = 0;  // Any change means life.
};

struct GroupPeer {
  std::string process_id;
  std::string host;
};

// One rank's seat in a group. Peers by rank.
struct GroupSeat {
  GroupId group;
  TermId term;
  EpochId epoch;
  int32_t tp = 1;
  int32_t pp = 1;
  int32_t rank = 0;
  std::vector<GroupPeer> peers;
  int32_t blocks = 0;  // The least of the ranks' pools; ids run from 1 to blocks - 1.
  WorkerLimits limits;
};

struct GroupExchange {
  EpochId epoch;
  int32_t round = 0;
  int32_t rank = 0;
  std::string bytes;
};

struct GroupReady {
  TermId term;
  EpochId epoch;
  int32_t rank = 0;
};

struct GroupFailed {
  TermId term;
  EpochId epoch;
  int32_t rank = 0;
  std::string message;
};

// First on Steps.
struct StepsHello {
  TermId term;
  EpochId epoch;
  int32_t rank = 0;
  std::string process_id;
};

struct Abort {
  TermId term;
  EpochId epoch;
  std::string reason;
};

}  // namespace fathom::scheduler
