// scheduler/transport/transport.h: the streams to routers and workers, as the driver uses them:
// events in, messages out. grpc_transport.h is the real implementation; tests use an in-process
// fake (tests/scheduler/fake_transport.h). Thread: the driver's, which waits only in Next. Each
// stream is a peer with its own id, which is never reused: a process that reconnects is another
// peer.
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

// A stream was opened. Its first message is still to come.
struct PeerUp {};

// The stream has ended. Not sent for a stream that the driver closed.
struct PeerDown {
  std::string reason;
};

using UpMessage =
    std::variant<PeerUp, Hello, Heartbeat, Submit, SubmitUnreadable, Suspend, Close, ExplainAsk,
                 GroupExchange, GroupReady, GroupFailed, StepsHello, StepResult, PeerDown>;

struct TransportEvent {
  PeerId peer;
  StreamKind stream = StreamKind::kRoute;
  UpMessage message;
};

// ---- Messages ----

// The messages that the driver sends. cluster/wire.h says which stream carries which of them.
using DownMessage = std::variant<Hello, Heartbeat, Accepted, Refused, Frames, ClusterStats,
                                 Explained, GroupSeat, GroupExchange, Abort, Resign, StepPlan>;

// ---- Transport ----

struct TransportLimits {
  // Bytes that may wait for one peer, in addition to the message that is being written.
  int64_t outbox_bytes_max = int64_t{8} << 20;
  int64_t write_stall_us_max = 2'000'000;  // The longest time of one write.
  int32_t message_bytes_max = kClusterMessageBytesMax;
  int32_t streams_max = 4096;
};

struct TransportStats {
  int32_t streams = 0;
  uint64_t outbox_overflows_total = 0;  // Streams that were closed because their peer did not read.
  uint64_t unreadable_messages_total = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;

  // Returns the next event, or nullopt at `deadline`. With a deadline in the past it does not wait.
  virtual std::optional<TransportEvent> Next(TimeUs deadline) = 0;

  // Sends a message to each of `peers`, after everything sent to that peer before. Encodes it once.
  // Never blocks. A peer that is gone is skipped. A peer whose outbox is full is closed and
  // reported by PeerDown.
  virtual void Send(std::span<const PeerId> peers, const DownMessage& message) = 0;
  void Send(PeerId peer, const DownMessage& message) { Send(std::span(&peer, 1), message); }

  // Ends the stream with this status after the messages already sent. No more events come from it.
  virtual void Close(PeerId peer, const absl::Status& status) = 0;

  // From now on health answers NOT_SERVING.
  virtual void StopServing() = 0;

  // Whether everything sent has been written (or its stream has ended).
  virtual bool Flushed() const = 0;

  virtual TransportStats Stats() const = 0;
};

}  // namespace fathom::scheduler
