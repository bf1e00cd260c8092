#include "scheduler/transport/grpc_stream.h"

#include <utility>

#include "rpc/credentials.h"

namespace fathom::scheduler {

void GrpcStream::Accept(const std::function<void(grpc::ServerContext*, Call*, void*)>& request) {
  ++pending_;
  request(&context_, &call_, &accepted_);
}

void GrpcStream::OnAccepted(bool ok) {
  if (ok) {
    connection_ = context_.peer();
    owner_.OnOpen(this);
  }
  Drop();
}

std::vector<std::string> GrpcStream::peer_names() const {
  const auto auth = context_.auth_context();
  return auth == nullptr ? std::vector<std::string>() : rpc::PeerNames(*auth);
}

void GrpcStream::StartReading() {
  ++pending_;
  call_.Read(&incoming_, &read_);
}

void GrpcStream::OnRead(bool ok) {
  if (!ok) {
    if (!closed_) {
      closed_ = grpc::Status::OK;
      outbox_.clear();
      owner_.OnEnd(this, "the stream ended");
      FinishWhenWritten();
    }
    return Drop();
  }
  if (!closed_) owner_.OnMessage(this, &incoming_);
  // Reading continues after Close: only the end of the call ends it, and this read reports that
  // end.
  call_.Read(&incoming_, &read_);
}

bool GrpcStream::Send(const grpc::ByteBuffer& bytes) {
  if (closed_) return true;
  const auto size = static_cast<int64_t>(bytes.Length());
  const bool fits = size <= limits_.message_bytes_max &&
                    (outbox_.empty() || outbox_bytes_ + size <= limits_.outbox_bytes_max);
  if (!fits) {
    Cancel();
    return false;
  }
  if (!writing_) {
    Write(bytes);
  } else {
    outbox_.push_back(bytes);
    outbox_bytes_ += size;
  }
  return true;
}

void GrpcStream::Write(const grpc::ByteBuffer& bytes) {
  writing_ = true;
  write_began_us_ = clock_.Now();
  ++pending_;
  call_.Write(bytes, &written_);
}

void GrpcStream::OnWritten(bool ok) {
  writing_ = false;
  if (!ok) outbox_.clear();  // The read fails too and tells the owner.
  if (!outbox_.empty()) {
    outbox_bytes_ -= static_cast<int64_t>(outbox_.front().Length());
    Write(outbox_.front());
    outbox_.pop_front();
  } else {
    outbox_bytes_ = 0;
    FinishWhenWritten();
  }
  Drop();
}

void GrpcStream::Close(const grpc::Status& status) {
  if (closed_) return;
  closed_ = status;
  FinishWhenWritten();
}

void GrpcStream::Cancel() {
  if (!closed_)
    closed_ = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the peer does not read");
  outbox_.clear();
  context_.TryCancel();
  FinishWhenWritten();
}

void GrpcStream::FinishWhenWritten() {
  if (!closed_ || writing_ || finishing_) return;
  finishing_ = true;
  ++pending_;
  call_.Finish(*closed_, &finished_);
}

void GrpcStream::OnFinished(bool) { Drop(); }

void GrpcStream::Drop() {
  if (--pending_ == 0) owner_.OnGone(this);
}

}  // namespace fathom::scheduler
