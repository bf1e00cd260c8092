// router/link/grpc_scheduler_link.h: SchedulerLink over gRPC: one Route stream to every scheduler
// address, the leader with the highest term obeyed.
//
// Thread: Start, Tick and Stop from one thread; the SchedulerLink methods from any. Events come
// from gRPC's threads. Bounds: an outbox holds at most outbox_bytes_max of Submits (one larger than
// that goes alone).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cluster/leader_link.h"
#include "common/clock.h"
#include "router/sessions/scheduler_link.h"

namespace fathom::router {

struct GrpcSchedulerLinkOptions {
  std::vector<std::string> addresses;  // host:port each.
  std::string config_digest;           // Of this router's model folder.
  size_t outbox_bytes_max = 8 << 20;
  int64_t heartbeat_us = kHeartbeatUs;
  LeaderLinkOptions link;
};

class GrpcSchedulerLink final : public SchedulerLink {
 public:
  // `clock` and `events` outlive this.
  GrpcSchedulerLink(const GrpcSchedulerLinkOptions& options, const Clock* clock);
  ~GrpcSchedulerLink() override;

  void Start(SchedulerEvents* events);
  // Heartbeats, reconnects, silence. Call at least each 100 ms.
  void Tick();
  // Ends all streams and waits for their last callbacks. No event comes after it.
  void Stop();

  bool SendSubmit(StreamId stream, const Submit& submit) override;
  void SendSuspend(StreamId stream, const Suspend& suspend) override;
  void SendClose(StreamId stream, const Close& close) override;
  void Reset(StreamId stream) override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::router
