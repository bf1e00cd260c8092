// scheduler/transport/grpc_transport.h: the streams over gRPC: one server and one completion queue.
// Only the driver thread polls the queue (in Next), so a message needs no hop between threads. Also
// serves grpc.health.v1 and reflection on the same queue.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/clock.h"
#include "common/listener.h"
#include "common/status.h"
#include "common/tls_files.h"
#include "scheduler/transport/transport.h"

namespace fathom::scheduler {

class GrpcTransport final : public Transport {
 public:
  // UNAVAILABLE: gRPC did not start. `clock` must be a RealClock. With `tls`, a stream is ended
  // whose peer's certificate does not have the name of its role (common/tls_files.h).
  static absl::StatusOr<std::unique_ptr<GrpcTransport>> Serve(Listener listener,
                                                              const TransportLimits& limits,
                                                              const Clock* clock,
                                                              const TlsFiles& tls = {});
  // Cancels the open streams.
  ~GrpcTransport() override;

  int32_t port() const;

  std::optional<TransportEvent> Next(TimeUs deadline) override;
  using Transport::Send;
  void Send(std::span<const PeerId> peers, const DownMessage& message) override;
  void Close(PeerId peer, const absl::Status& status) override;
  void StopServing() override;
  bool Flushed() const override;
  TransportStats Stats() const override;

 private:
  class Impl;
  explicit GrpcTransport(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::scheduler
