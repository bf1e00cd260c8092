#include "scheduler/transport/grpc_transport.h"

#include <google/protobuf/arena.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cluster.grpc.pb.h"
#include "rpc/connections.h"
#include "rpc/credentials.h"
#include "rpc/port_limits.h"
#include "scheduler/transport/grpc_health.h"
#include "scheduler/transport/grpc_reflection.h"
#include "scheduler/transport/grpc_stream.h"
#include "scheduler/transport/stream_bytes.h"

namespace fathom::scheduler {
namespace {

using Service = cluster::v1::Scheduler;
// Streams carry bytes and not messages, so that a plan is encoded once for all ranks and the outbox
// knows its size.
using RawService = Service::WithRawMethod_Route<
    Service::WithRawMethod_Control<Service::WithRawMethod_Steps<Service::Service>>>;

constexpr int64_t kSweepUs = 250'000;
constexpr size_t kArenaBytes = 64 << 10;

grpc::Status ToGrpc(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), std::string(Message(status))};
}

grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message) {
  grpc::Slice slice(message.ByteSizeLong());
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

// Routers and workers hold streams, so an idle connection belongs to neither.
rpc::PortLimits LimitsOfPort(const TransportLimits& limits) {
  rpc::PortLimits port;
  port.message_bytes_max = limits.message_bytes_max;
  port.memory_bytes_max = size_t{1} << 30;
  port.connection_idle_ms = 30'000;
  port.keepalive_ms = 20'000;
  port.keepalive_timeout_ms = 5'000;
  return port;
}

}  // namespace

class GrpcTransport::Impl final : public GrpcStream::Owner {
 public:
  Impl(const TransportLimits& limits, const Clock* clock, const TlsFiles& tls)
      : limits_(limits), clock_(*clock), tls_(tls) {}

  ~Impl() override {
    if (!server_) return;
    connections_->Stop();
    server_->Shutdown(std::chrono::system_clock::now());
    queue_->Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_->Next(&tag, &ok)) {
    }
  }

  absl::Status Serve(Listener listener) {
    port_ = listener.port();
    const rpc::PortLimits port = LimitsOfPort(limits_);
    rpc::ConnectionLimits watched;
    // Messages that are being received are not reported to `connections_`.
    watched.stray_bytes_burst = int64_t{2} * port.message_bytes_max;
    watched.tls = tls_.on();
    connections_.emplace(std::move(listener), watched);
    grpc::ServerBuilder builder;
    rpc::Apply(port, "scheduler", &builder);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindowBytes);
    builder.SetMaxSendMessageSize(limits_.message_bytes_max);
    connections_->AddTo(&builder, rpc::ServerCredentialsOf(tls_));
    builder.RegisterService(&service_);
    health_.Register(&builder);
    reflection_.Register(&builder);
    queue_ = builder.AddCompletionQueue();
    server_ = builder.BuildAndStart();
    if (!server_) return Unavailable("gRPC cannot serve on port {}", port_);
    health_.Start(queue_.get());
    reflection_.Start(queue_.get());
    for (const StreamKind kind : {StreamKind::kRoute, StreamKind::kControl, StreamKind::kSteps})
      Accept(kind);
    connections_->Start();
    return absl::OkStatus();
  }

  int32_t port() const { return port_; }

  std::optional<TransportEvent> Next(TimeUs deadline) {
    for (bool looked = false;; looked = true) {
      if (!events_.empty()) {
        TransportEvent event = std::move(events_.front());
        events_.pop_front();
        return event;
      }
      const TimeUs now = clock_.Now();
      if (looked && now >= deadline) return std::nullopt;
      if (now >= next_sweep_us_) Sweep(now);
      const TimeUs until = streams_.empty() ? deadline : std::min(deadline, next_sweep_us_);
      const gpr_timespec wait =
          gpr_time_from_micros(std::clamp<int64_t>(until - now, 0, 60'000'000), GPR_TIMESPAN);
      void* tag = nullptr;
      bool ok = false;
      const auto got =
          queue_->AsyncNext(&tag, &ok, gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), wait));
      if (got == grpc::CompletionQueue::GOT_EVENT) static_cast<Completion*>(tag)->Done(ok);
    }
  }

  void Send(std::span<const PeerId> peers, const DownMessage& message) {
    std::optional<grpc::ByteBuffer> bytes;
    for (const PeerId peer : peers) {
      const auto it = streams_.find(peer);
      if (it == streams_.end() || it->second->closed()) continue;
      GrpcStream& stream = *it->second;
      if (!bytes) {
        bytes = Serialize(DownToWire(stream.kind(), message, &arena_));
        arena_.Reset();
      }
      if (!stream.Send(*bytes)) NotRead(stream, "outbox full");
    }
  }

  void Close(PeerId peer, const absl::Status& status) {
    const auto it = streams_.find(peer);
    if (it == streams_.end()) return;
    it->second->Close(ToGrpc(status));
    // Drops the events of this peer that the driver has not handled yet.
    std::erase_if(events_, [peer](const TransportEvent& event) { return event.peer == peer; });
  }

  void StopServing() { health_.SetServing(false); }

  bool Flushed() const {
    return std::all_of(streams_.begin(), streams_.end(),
                       [](const auto& entry) { return entry.second->flushed(); });
  }

  TransportStats Stats() const {
    TransportStats stats = stats_;
    stats.streams = static_cast<int32_t>(streams_.size());
    return stats;
  }

  // ---- GrpcStream::Owner ------------------------------------------------------------------------

  void OnOpen(GrpcStream* stream) override {
    connections_->CallBegan(stream->connection());
    const auto waiting = accepting_.find(stream);
    streams_.emplace(stream->peer(), std::move(waiting->second));
    accepting_.erase(waiting);
    Accept(stream->kind());
    if (static_cast<int32_t>(streams_.size()) > limits_.streams_max) {
      return stream->Close(
          {grpc::StatusCode::RESOURCE_EXHAUSTED,
           fmt::format("{} streams are open, this scheduler's limit", limits_.streams_max)});
    }
    if (tls_.on() && !HasRole(*stream)) {
      return stream->Close(
          {grpc::StatusCode::PERMISSION_DENIED,
           fmt::format("the certificate of {} does not have the DNS name {}, which "
                       "this stream needs",
                       stream->connection(), RoleOf(stream->kind()))});
    }
    events_.push_back({stream->peer(), stream->kind(), PeerUp{}});
    stream->StartReading();
  }

  void OnMessage(GrpcStream* stream, grpc::ByteBuffer* bytes) override {
    connections_->MessageCame(stream->connection(), bytes->Length());
    grpc::Slice slice;
    if (!bytes->TrySingleSlice(&slice).ok() && !bytes->DumpToSingleSlice(&slice).ok())
      slice = grpc::Slice();
    absl::StatusOr<UpMessage> message = UpFromBytes(stream->kind(), slice.begin(), slice.size());
    if (message.ok()) {
      events_.push_back({stream->peer(), stream->kind(), *std::move(message)});
      return;
    }
    ++stats_.unreadable_messages_total;
    stream->Close(ToGrpc(message.status()));
    OnEnd(stream, std::string(Message(message.status())));
  }

  void OnEnd(GrpcStream* stream, const std::string& why) override {
    events_.push_back({stream->peer(), stream->kind(), PeerDown{why}});
  }

  void OnGone(GrpcStream* stream) override {
    if (!stream->connection().empty()) {
      connections_->CallEnded(stream->connection(), rpc::CallEnd::kAnswered);
    }
    accepting_.erase(stream);
    streams_.erase(stream->peer());
  }

 private:
  // The name in the certificate of a peer that may open such a stream.
  static const char* RoleOf(StreamKind kind) {
    return kind == StreamKind::kRoute ? kRouterName : kWorkerName;
  }
  static bool HasRole(const GrpcStream& stream) {
    const std::vector<std::string> names = stream.peer_names();
    return std::ranges::find(names, RoleOf(stream.kind())) != names.end();
  }

  void Accept(StreamKind kind) {
    auto stream = std::make_unique<GrpcStream>(PeerId{++peers_}, kind, limits_, &clock_, this);
    GrpcStream* raw = stream.get();
    accepting_.emplace(raw, std::move(stream));
    raw->Accept([&](grpc::ServerContext* context, GrpcStream::Call* call, void* tag) {
      switch (kind) {
        case StreamKind::kRoute:
          return service_.RequestRoute(context, call, queue_.get(), queue_.get(), tag);
        case StreamKind::kControl:
          return service_.RequestControl(context, call, queue_.get(), queue_.get(), tag);
        case StreamKind::kSteps:
          return service_.RequestSteps(context, call, queue_.get(), queue_.get(), tag);
      }
    });
  }

  // The stream was cancelled, or will be, because its peer does not read.
  void NotRead(GrpcStream& stream, const char* why) {
    ++stats_.outbox_overflows_total;
    OnEnd(&stream, fmt::format("the peer does not read: {}", why));
  }

  void Sweep(TimeUs now) {
    next_sweep_us_ = now + kSweepUs;
    for (auto& [peer, stream] : streams_) {
      if (!stream->Stalled(now)) continue;
      const bool told = stream->closed();
      stream->Cancel();
      if (!told) NotRead(*stream, "a write stalled");
    }
  }

  const TransportLimits limits_;
  const Clock& clock_;
  const TlsFiles tls_;
  RawService service_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  GrpcHealth health_{Service::service_full_name()};
  GrpcReflection reflection_{{Service::service_full_name(), GrpcHealth::service_full_name()}};
  std::optional<rpc::Connections> connections_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  int64_t peers_ = 0;
  TimeUs next_sweep_us_ = 0;
  TransportStats stats_;
  std::deque<TransportEvent> events_;
  std::unordered_map<GrpcStream*, std::unique_ptr<GrpcStream>> accepting_;
  std::map<PeerId, std::unique_ptr<GrpcStream>> streams_;
  std::array<char, kArenaBytes> arena_block_;
  google::protobuf::Arena arena_{arena_block_.data(), arena_block_.size()};
};

absl::StatusOr<std::unique_ptr<GrpcTransport>> GrpcTransport::Serve(Listener listener,
                                                                    const TransportLimits& limits,
                                                                    const Clock* clock,
                                                                    const TlsFiles& tls) {
  auto impl = std::make_unique<Impl>(limits, clock, tls);
  FATHOM_RETURN_IF_ERROR(impl->Serve(std::move(listener)));
  return std::unique_ptr<GrpcTransport>(new GrpcTransport(std::move(impl)));
}

GrpcTransport::GrpcTransport(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GrpcTransport::~GrpcTransport() = default;

int32_t GrpcTransport::port() const { return impl_->port(); }
std::optional<TransportEvent> GrpcTransport::Next(TimeUs deadline) { return impl_->Next(deadline); }
void GrpcTransport::Send(std::span<const PeerId> peers, const DownMessage& message) {
  impl_->Send(peers, message);
}
void GrpcTransport::Close(PeerId peer, const absl::Status& status) { impl_->Close(peer, status); }
void GrpcTransport::StopServing() { impl_->StopServing(); }
bool GrpcTransport::Flushed() const { return impl_->Flushed(); }
TransportStats GrpcTransport::Stats() const { return impl_->Stats(); }

}  // namespace fathom::scheduler
