// router/link/grpc_scheduler_link.h: SchedulerLink over gRPC. It keeps one Route stream to every
// scheduler address and obeys the leader with the highest term.
//
// Thread: one thread calls Start, Tick and Stop; any thread may call the methods of SchedulerLink.
// gRPC's threads call the SchedulerEvents. Bounds: Submits are refused while an outbox holds
// outbox_bytes_max; a Submit that is larger than that is sent alone.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cluster/leader_link.h"
#include "common/clock.h"
#include "common/tls_files.h"
#include "router/sessions/scheduler_link.h"

namespace fathom::router {

struct GrpcSchedulerLinkOptions {
  std::vector<std::string> addresses;  // Each host:port.
  std::string config_digest;           // The digest of this router's model folder.
  size_t outbox_bytes_max = 8 << 20;
  int64_t heartbeat_us = kHeartbeatUs;
  LeaderLinkOptions link;
  TlsFiles tls;  // --cluster-cert and its companions; none: no TLS.
};

class GrpcSchedulerLink final : public SchedulerLink {
 public:
  // REQUIRES: `clock`, and the events of Start, outlive this object.
  GrpcSchedulerLink(const GrpcSchedulerLinkOptions& options, const Clock* clock);
  ~GrpcSchedulerLink() override;

  void Start(SchedulerEvents* events);
  // Sends heartbeats, dials again, and cancels silent streams. Must be called at least every
  // 100 ms.
  void Tick();
  // Ends all streams and waits for their last callbacks. No event comes after Stop.
  void Stop();

  bool SendSubmit(StreamId stream, const Submit& submit) override;
  void SendSuspend(StreamId stream, const Suspend& suspend) override;
  void SendClose(StreamId stream, const Close& close) override;
  bool SendExplain(StreamId stream, const ExplainAsk& ask) override;
  void Reset(StreamId stream) override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::router
