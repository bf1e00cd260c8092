// cluster/control_messages.h: the messages between workers and the scheduler about groups, and the
// first message of Steps. Plain data with the fields of cluster.proto; no IO.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "cluster/messages.h"
#include "cluster/plan.h"
#include "common/group_shape.h"
#include "common/types.h"

namespace fathom {

struct GroupPeer {
  std::string process_id;
  std::string host;
  std::string machine = {};  // As in WorkerFacts.
  std::string shared_memory = {};
  bool operator==(const GroupPeer&) const = default;
};

// Whether one kernel runs both processes. The name of the host decides only if a build does not
// tell its machine.
inline bool OnOneMachine(const GroupPeer& a, const GroupPeer& b) {
  return a.machine.empty() || b.machine.empty() ? a.host == b.host : a.machine == b.machine;
}
// Whether both processes see the same /dev/shm.
inline bool ShareMemory(const GroupPeer& a, const GroupPeer& b) {
  return OnOneMachine(a, b) && a.shared_memory == b.shared_memory;
}

// The scheduler gives a worker its rank (its seat) in a group. Peers are ordered by rank.
struct GroupSeat {
  GroupId group;
  TermId term;
  EpochId epoch;
  int32_t tp = 1;
  int32_t pp = 1;
  int32_t rank = 0;
  std::vector<GroupPeer> peers;
  int32_t blocks = 0;  // The least of the ranks' pools; ids are 1 to blocks - 1.
  EngineLimits limits;
  GroupShape shape() const { return {tp, pp}; }
  bool operator==(const GroupSeat&) const = default;
};

// The set-up data of one rank, which the scheduler relays to the other ranks of the epoch.
struct GroupExchange {
  EpochId epoch;
  int32_t round = 0;
  int32_t rank = 0;
  std::string bytes;
  bool operator==(const GroupExchange&) const = default;
};

// The worker is loaded and connected to its peers; its engine thread will open Steps.
struct GroupReady {
  TermId term;
  EpochId epoch;
  int32_t rank = 0;
  std::vector<StartMark> startup = {};
  bool operator==(const GroupReady&) const = default;
};

struct GroupFailed {
  TermId term;
  EpochId epoch;
  int32_t rank = 0;
  std::string message;
  bool operator==(const GroupFailed&) const = default;
};

struct Abort {
  TermId term;
  EpochId epoch;
  std::string reason;
  bool operator==(const Abort&) const = default;
};

// Asks a worker to leave. No scheduler of this build sends it: a worker that gets SIGTERM says
// DRAINING in its heartbeats, and the Abort of its epoch releases it.
struct Drain {
  int64_t grace_us = 0;
  bool operator==(const Drain&) const = default;
};

using ControlUpMessage = std::variant<Hello, Heartbeat, GroupExchange, GroupReady, GroupFailed>;
using ControlDownMessage =
    std::variant<Hello, Heartbeat, GroupSeat, GroupExchange, Abort, Drain, Resign>;

// The first message on Steps.
struct StepsHello {
  TermId term;
  EpochId epoch;
  int32_t rank = 0;
  std::string process_id;
  bool operator==(const StepsHello&) const = default;
};

using StepsUpMessage = std::variant<StepsHello, StepResult>;

}  // namespace fathom
