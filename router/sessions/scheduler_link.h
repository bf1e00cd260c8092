// router/sessions/scheduler_link.h: the way to the leading scheduler as sessions see it, and back.
// gRPC is behind it (grpc_scheduler_link.h); tests use an in-process fake.
//
// A `StreamId` names one life of the stream to a leader and never comes back. Whoever sends names
// the stream it means, so that nothing meant for an old leader reaches a new one. Thread:
// SchedulerLink's methods from any thread, they never block and never call back. SchedulerEvents'
// methods come from the link's threads, with no lock of the link held.
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

  // False: `stream` is not the leader's any more, or too much waits to be written; then OnWritable
  // follows.
  virtual bool SendSubmit(StreamId stream, const Submit& submit) = 0;
  // Small, so never refused for want of room; dropped when `stream` is over.
  virtual void SendSuspend(StreamId stream, const Suspend& suspend) = 0;
  virtual void SendClose(StreamId stream, const Close& close) = 0;
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
  virtual void OnAccepted(Accepted accepted) = 0;
  virtual void OnRefused(const Refused& refused) = 0;
  virtual void OnFrames(StreamId stream, std::span<Frame> frames) = 0;
  virtual void OnStats(const ClusterStats& stats) = 0;
};

}  // namespace fathom::router
