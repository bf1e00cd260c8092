// scheduler/transport/transport.h: the streams to routers and workers as the driver sees them:
// events in, messages out. grpc_transport.h is the real one; tests use an in-process fake
// (tests/scheduler/fake_transport.h). Thread: owned by the driver thread, which waits in Next and
// nowhere else. Each stream is a peer with an id of its own, never used twice: a process that comes
// back is another peer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "cluster/control_messages.h"
#include "cluster/plan.h"
#include "cluster/protocol.h"
#include "cluster/route_messages.h"
#include "common/status.h"
#include "common/types.h"

namespace fathom::scheduler {

enum class StreamKind { kRoute, kControl, kSteps };
inline const char* StreamKindName(StreamKind kind) {
  return kind == StreamKind::kRoute ? "Route" : kind == StreamKind::kControl ? "Control" : "Steps";
}

// ---- Events ----

// A stream was opened; its first message is still to come.
struct PeerUp {};

// The stream is gone. Not sent for a stream that the driver closed itself.
struct PeerDown {
  std::string reason;
};

using UpMessage =
    std::variant<PeerUp, Hello, Heartbeat, Submit, SubmitUnreadable, Suspend, Close, GroupExchange,
                 GroupReady, GroupFailed, StepsHello, StepResult, PeerDown>;

struct TransportEvent {
  PeerId peer;
  StreamKind stream = StreamKind::kRoute;
  UpMessage message;
};

// ---- Messages ----

// What the driver sends; each stream carries some of them (cluster/wire.h).
using DownMessage = std::variant<Hello, Heartbeat, Accepted, Refused, Frames, ClusterStats,
                                 GroupSeat, GroupExchange, Abort, Resign, StepPlan>;

// ---- Transport ----

struct TransportLimits {
  int64_t outbox_bytes_max =
      int64_t{8} << 20;  // What may wait for one peer, beside the message being written.
  int64_t write_stall_us_max = 2'000'000;  // One write's longest time.
  int32_t message_bytes_max = kClusterMessageBytesMax;
  int32_t streams_max = 4096;
};

struct TransportStats {
  int32_t streams = 0;
  uint64_t outbox_overflows_total = 0;  // Streams closed because their peer did not read.
  uint64_t unreadable_messages_total = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;

  // The next event, at the latest at `deadline` (nullopt then). A deadline in the past only looks.
  virtual std::optional<TransportEvent> Next(TimeUs deadline) = 0;

  // Sends to each of `peers`, in order with what was sent to it before; encodes once. Never blocks.
  // A peer that is gone is skipped; one whose outbox is full is closed and reported by PeerDown.
  virtual void Send(std::span<const PeerId> peers, const DownMessage& message) = 0;
  void Send(PeerId peer, const DownMessage& message) { Send(std::span(&peer, 1), message); }

  // Ends the stream with this status after what was sent. Nothing more comes from it.
  virtual void Close(PeerId peer, const absl::Status& status) = 0;

  // Health answers NOT_SERVING from now on.
  virtual void StopServing() = 0;

  // Whether all that was sent has left (or its stream is gone).
  virtual bool Flushed() const = 0;

  virtual TransportStats Stats() const = 0;
};

}  // namespace fathom::scheduler
