// rpc/call.h: one gRPC call of rpc/server.h, of any shape (unary, a stream of answers, streams both
// ways), in bytes. It ends by exactly one of Finish, Reply and WriteAndFinish.
//
// Thread: any. One write and one read at a time. The call lives until gRPC is done with it, and as
// long as somebody holds it.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

namespace fathom::rpc {

std::string Dump(const grpc::ByteBuffer& buffer);
grpc::ByteBuffer ToBuffer(const std::string& bytes);

// Whoever serves a call beyond its first message. Never called with a lock held.
class CallSink {
 public:
  virtual ~CallSink() = default;
  virtual void OnMessage(grpc::ByteBuffer) {}  // After Call::Read.
  virtual void OnMessagesEnd() {}              // After Call::Read: the client sends no more.
  virtual void OnWriteDone(bool /*ok*/) {}
  virtual void OnCancel() {}  // The call must still be finished.
  virtual void OnDone() {}    // The last one.
};

class Call final : public grpc::ServerGenericBidiReactor {
 public:
  // What the server does at a call's events. Outlives all calls.
  struct Owner {
    virtual ~Owner() = default;
    virtual void OnFirstMessage(const std::shared_ptr<Call>& call, grpc::ByteBuffer message) = 0;
    // No message will come: the client cancelled, or closed its side.
    virtual void OnNoMessage(const std::shared_ptr<Call>& call) = 0;
    // The call is over. `abandoned`: it was cancelled before anything was answered.
    virtual void OnEnd(const std::shared_ptr<Call>& call, bool abandoned) = 0;
  };

  static std::shared_ptr<Call> Make(Owner* owner, grpc::GenericCallbackServerContext* context);

  const std::string& method() const { return method_; }
  const std::string& peer() const { return peer_; }
  // The last "x-forwarded-for" header, as it came; empty: there is none. A client may send
  // anything in it; it can be trusted only behind a proxy that sets it.
  const std::string& forwarded_for() const { return forwarded_for_; }
  // The last "traceparent" header, likewise.
  const std::string& traceparent() const { return traceparent_; }
  std::chrono::system_clock::time_point deadline() const { return deadline_; }
  std::chrono::steady_clock::time_point began() const { return began_; }
  bool cancelled() const { return cancelled_; }

  // A call that was cancelled already has OnCancel called at once. REQUIRES: called once at most,
  // before the call ends.
  void SetSink(std::shared_ptr<CallSink> sink);

  void Read() { StartRead(&incoming_); }
  void Write(grpc::ByteBuffer message);
  void WriteAndFinish(grpc::ByteBuffer message);  // With OK.
  void Reply(grpc::ByteBuffer message) { WriteAndFinish(std::move(message)); }
  void End(const grpc::Status& status);
  // Ends the call for the client at once. The sink's OnCancel follows.
  void Break();

  // For the server: true for the first who asks, who then decides about the call.
  bool Take() { return !taken_.exchange(true); }
  // For the server: counts as abandoned, whatever the client does.
  void set_refused() { refused_ = true; }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  Call(Owner* owner, grpc::GenericCallbackServerContext* context);
  std::shared_ptr<CallSink> sink();

  Owner* const owner_;
  const std::string method_;
  const std::string peer_;
  const std::string forwarded_for_;
  const std::string traceparent_;
  const std::chrono::system_clock::time_point deadline_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::shared_ptr<Call> self_;  // Until OnDone.
  grpc::ByteBuffer incoming_;   // Owned by the read in flight.
  grpc::ByteBuffer outgoing_;   // Owned by the write in flight.
  std::atomic<bool> taken_{false};
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> answered_{false};
  std::atomic<bool> refused_{false};
  bool first_ = true;

  std::mutex mutex_;  // Guards sink_.
  std::shared_ptr<CallSink> sink_;
  // Guards context_, which ends with OnDone. Recursive, for a cancelled call may end within
  // TryCancel.
  std::recursive_mutex context_mutex_;
  grpc::GenericCallbackServerContext* context_;
};

}  // namespace fathom::rpc
