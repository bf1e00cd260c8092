// router/sessions/scheduler_link.h: how sessions talk to the leading scheduler (SchedulerLink) and
// hear from it (SchedulerEvents). The implementation is over gRPC (grpc_scheduler_link.h); tests
// use a fake in the same process.
//
// A StreamId names one stream to one leader and is never used again. A sender names the stream, so
// a message for an old leader never reaches a new one. Thread: any thread may call the methods of
// SchedulerLink, which never block and never call SchedulerEvents. The link's threads call the
// methods of SchedulerEvents, with no lock of the link held.
#pragma once

#include <cstdint>
#include <span>

#include "cluster/route_messages.h"
#include "common/types.h"

namespace fathom::router {

using StreamId = Id<struct RouteStreamTag, uint64_t>;  // 0: none.

class SchedulerLink {
 public:
  virtual ~SchedulerLink() = default;

  // False: `stream` does not lead to the leader any more, or too many bytes wait to be written. In
  // the second case OnWritable follows.
  virtual bool SendSubmit(StreamId stream, const Submit& submit) = 0;
  // A Suspend and a Close are small, so they are sent even if the outbox is full. They are dropped
  // if `stream` has ended.
  virtual void SendSuspend(StreamId stream, const Suspend& suspend) = 0;
  virtual void SendClose(StreamId stream, const Close& close) = 0;
  // False: `stream` does not lead to the leader any more, or too many bytes wait to be written.
  // REQUIRES: the leader speaks version 2 of the protocol.
  virtual bool SendExplain(StreamId stream, const ExplainAsk& ask) = 0;
  // Ends `stream`, because a message that came over it is invalid. OnDown and a new OnUp follow.
  virtual void Reset(StreamId stream) = 0;
};

class SchedulerEvents {
 public:
  virtual ~SchedulerEvents() = default;

  // A leader answers on a new stream. Each new stream has a higher id; a lower id than the last one
  // is ignored. `protocol` is the version that both ends speak.
  virtual void OnUp(StreamId stream, const SchedulerFacts& facts, uint32_t protocol) = 0;
  // The facts of the same leader have changed.
  virtual void OnFacts(StreamId stream, const SchedulerFacts& facts) = 0;
  virtual void OnDown(StreamId stream) = 0;
  // Called after a SendSubmit that found no room, when there is room.
  virtual void OnWritable(StreamId stream) = 0;
  virtual void OnAccepted(Accepted accepted) = 0;
  virtual void OnRefused(const Refused& refused) = 0;
  virtual void OnFrames(StreamId stream, std::span<Frame> frames) = 0;
  virtual void OnStats(const ClusterStats& stats) = 0;
  virtual void OnExplained(const Explained& explained) = 0;
};

}  // namespace fathom::router
