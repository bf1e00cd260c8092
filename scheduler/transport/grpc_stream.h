// scheduler/transport/grpc_stream.h: one bidirectional call (Route, Control or Steps) on the
// completion queue: bytes in, bytes out, one read always pending, at most one write at a time, a
// bounded outbox. Thread: the driver's. Life: the owner creates a stream, calls Accept and must
// keep it until OnGone, which comes once, when no operation is pending any more.
#pragma once

#include <grpcpp/impl/codegen/async_stream.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/types.h"
#include "scheduler/transport/completion.h"
#include "scheduler/transport/transport.h"

namespace fathom::scheduler {

class GrpcStream {
 public:
  using Call = grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>;

  class Owner {
   public:
    virtual ~Owner() = default;
    // A call came. Nothing is read before StartReading.
    virtual void OnOpen(GrpcStream* stream) = 0;
    virtual void OnMessage(GrpcStream* stream, grpc::ByteBuffer* bytes) = 0;
    virtual void OnEnd(GrpcStream* stream, const std::string& why) = 0;  // Not called after Close.
    virtual void OnGone(GrpcStream* stream) = 0;
  };

  GrpcStream(PeerId peer, StreamKind kind, const TransportLimits& limits, const Clock* clock,
             Owner* owner)
      : peer_(peer), kind_(kind), limits_(limits), clock_(*clock), owner_(*owner) {}

  // Waits for a call. request(context, call, tag) calls the service's RequestX.
  void Accept(const std::function<void(grpc::ServerContext*, Call*, void*)>& request);
  void StartReading();

  // Writes or queues `bytes`. Returns false if they do not fit; the stream was then ended, and the
  // owner does not get OnEnd.
  bool Send(const grpc::ByteBuffer& bytes);
  // Ends the call with `status` after the queued messages. Of the later events the owner gets only
  // OnGone.
  void Close(const grpc::Status& status);
  // Ends the call at once.
  void Cancel();

  PeerId peer() const { return peer_; }
  // The connection of the call, as grpc::ServerContext::peer() names it; empty before a call came.
  const std::string& connection() const { return connection_; }
  // The names in the certificate of the peer; empty without TLS.
  std::vector<std::string> peer_names() const;
  StreamKind kind() const { return kind_; }
  bool closed() const { return closed_.has_value(); }
  bool flushed() const { return !writing_; }
  // Whether the write in flight began more than write_stall_us_max ago.
  bool Stalled(TimeUs now) const {
    return writing_ && now - write_began_us_ > limits_.write_stall_us_max;
  }

 private:
  void OnAccepted(bool ok);
  void OnRead(bool ok);
  void OnWritten(bool ok);
  void OnFinished(bool ok);
  void Write(const grpc::ByteBuffer& bytes);
  void FinishWhenWritten();
  void Drop();  // Counts one pending operation less.

  const PeerId peer_;
  const StreamKind kind_;
  const TransportLimits& limits_;
  const Clock& clock_;
  Owner& owner_;
  grpc::ServerContext context_;
  std::string connection_;
  Call call_{&context_};
  MemberCompletion<GrpcStream> accepted_{this, &GrpcStream::OnAccepted};
  MemberCompletion<GrpcStream> read_{this, &GrpcStream::OnRead};
  MemberCompletion<GrpcStream> written_{this, &GrpcStream::OnWritten};
  MemberCompletion<GrpcStream> finished_{this, &GrpcStream::OnFinished};
  grpc::ByteBuffer incoming_;
  std::deque<grpc::ByteBuffer> outbox_;
  int64_t outbox_bytes_ = 0;
  TimeUs write_began_us_ = 0;
  int pending_ = 0;  // Operations in the completion queue.
  bool writing_ = false;
  bool finishing_ = false;
  std::optional<grpc::Status> closed_;  // Set: no more events; the status with which the call ends.
};

}  // namespace fathom::scheduler
