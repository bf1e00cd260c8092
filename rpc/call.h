// rpc/call.h: one gRPC call of rpc/server.h of any kind (unary, server stream, bidirectional
// stream), in bytes. Exactly one of Finish, Reply and WriteAndFinish ends it.
//
// Thread: any. At most one write and one read at a time. The call lives until gRPC has finished it
// and no shared_ptr to it is left.
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
#include <utility>
#include <vector>

namespace fathom::rpc {

std::string Dump(const grpc::ByteBuffer& buffer);
grpc::ByteBuffer ToBuffer(const std::string& bytes);

// Handles the events of a call after its first message. Never called with a lock held.
class CallSink {
 public:
  virtual ~CallSink() = default;
  virtual void OnMessage(grpc::ByteBuffer) {}  // After Call::Read.
  virtual void OnMessagesEnd() {}              // After Call::Read: the client sends no more.
  virtual void OnWriteDone(bool /*ok*/) {}
  virtual void OnCancel() {}  // The call must still be finished.
  virtual void OnDone() {}    // The last event.
};

class Call final : public grpc::ServerGenericBidiReactor {
 public:
  // The server's part of a call's events. Outlives all calls.
  struct Owner {
    virtual ~Owner() = default;
    virtual void OnFirstMessage(const std::shared_ptr<Call>& call, grpc::ByteBuffer message) = 0;
    // No message will come: the client cancelled, or closed its side.
    virtual void OnNoMessage(const std::shared_ptr<Call>& call) = 0;
    // The call has ended. `abandoned`: it was cancelled before an answer was written.
    virtual void OnEnd(const std::shared_ptr<Call>& call, bool abandoned) = 0;
  };

  static std::shared_ptr<Call> Make(Owner* owner, grpc::GenericCallbackServerContext* context);

  const std::string& method() const { return method_; }
  const std::string& peer() const { return peer_; }
  // The last "x-forwarded-for" header, unchanged; empty: none. A client may send any text, so it
  // can be trusted only behind a proxy that sets it.
  const std::string& forwarded_for() const { return forwarded_for_; }
  // The last "traceparent" header, likewise.
  const std::string& traceparent() const { return traceparent_; }
  // The last "authorization" and "x-api-key" headers, likewise.
  const std::string& authorization() const { return authorization_; }
  const std::string& api_key() const { return api_key_; }
  // The DNS names of the certificate that TLS has checked; empty: the client has none.
  const std::vector<std::string>& peer_names() const { return peer_names_; }
  // Set by the server's guard before the call is handled; empty: there is no guard.
  const std::string& tenant() const { return tenant_; }
  void set_tenant(std::string tenant) { tenant_ = std::move(tenant); }
  std::chrono::system_clock::time_point deadline() const { return deadline_; }
  std::chrono::steady_clock::time_point began() const { return began_; }
  bool cancelled() const { return cancelled_; }

  // If the call is already cancelled, OnCancel is called at once. REQUIRES: called at most once,
  // before the call ends.
  void SetSink(std::shared_ptr<CallSink> sink);

  void Read() { StartRead(&incoming_); }
  void Write(grpc::ByteBuffer message);
  void WriteAndFinish(grpc::ByteBuffer message);  // With OK.
  void Reply(grpc::ByteBuffer message) { WriteAndFinish(std::move(message)); }
  void End(const grpc::Status& status);
  // Ends the call for the client at once. The sink's OnCancel follows.
  void Break();

  // For the server: true only for the first caller, which then decides how the call continues.
  bool Take() { return !taken_.exchange(true); }
  // For the server: the call counts as abandoned.
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
  const std::string authorization_;
  const std::string api_key_;
  const std::vector<std::string> peer_names_;
  std::string tenant_;
  const std::chrono::system_clock::time_point deadline_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::shared_ptr<Call> self_;  // Set until OnDone.
  grpc::ByteBuffer incoming_;   // Owned by the read in flight.
  grpc::ByteBuffer outgoing_;   // Owned by the write in flight.
  std::atomic<bool> taken_{false};
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> answered_{false};
  std::atomic<bool> refused_{false};
  bool first_ = true;

  std::mutex mutex_;  // Guards sink_.
  std::shared_ptr<CallSink> sink_;
  // Guards context_, which is valid until OnDone. The mutex is recursive, because a cancelled call
  // may end inside TryCancel.
  std::recursive_mutex context_mutex_;
  grpc::GenericCallbackServerContext* context_;
};

}  // namespace fathom::rpc
